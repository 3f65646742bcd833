"""What every endpoint works with: made once by :func:`api.app.create_app`, found on ``app.state``."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends
from fastapi import Request
from sqlmodel import Session

from infra.database.engine import Database
from infra.settings import Settings
from infra.store.base import BlobStore


@dataclass(frozen=True)
class Services:
    """The parts of the service that HTTP needs."""

    settings: Settings
    database: Database
    store: BlobStore

    @property
    def staging(self) -> Path:
        """Directory for bodies that are being received; private to the service's user."""
        path = self.settings.home / "staging"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path


def get_services(request: Request) -> Services:
    """Dependency: the services of the running app."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


CurrentServices = Annotated[Services, Depends(get_services)]


def _read_session(services: CurrentServices) -> Iterator[Session]:
    with services.database.read_session() as session:
        yield session


def _write_session(services: CurrentServices) -> Iterator[Session]:
    with services.database.write_session() as session:
        yield session


ReadSession = Annotated[Session, Depends(_read_session, scope="function")]
"""Closed before the response is sent: a slow client holds no connection."""

WriteSession = Annotated[Session, Depends(_write_session, scope="function")]
"""Committed before the response is sent: nobody is told of a row that then fails to commit."""
