"""Where the service is, and with which key: arguments, ``PARETUNE_*`` variables, the files of ``paretune up``."""

import os
from dataclasses import dataclass
from pathlib import Path

DEFAULT_URL = "http://127.0.0.1:8765"


@dataclass(frozen=True)
class ClientConfig:
    """A resolved configuration, and where each part came from."""

    home: Path
    url: str
    url_source: str
    api_key: str | None
    api_key_source: str


def default_home() -> Path:
    """The directory of the embedded service: ``PARETUNE_HOME``, or ``~/.paretune``."""
    return Path(os.environ.get("PARETUNE_HOME") or "~/.paretune").expanduser().absolute()


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def resolve(url: str | None = None, api_key: str | None = None, home: Path | None = None) -> ClientConfig:
    """Find the service's URL and an API key."""
    directory = home.expanduser().absolute() if home else default_home()
    urls = [
        (url, "argument"),
        (os.environ.get("PARETUNE_URL"), "PARETUNE_URL"),
        (_read(directory / "url"), str(directory / "url")),
        (DEFAULT_URL, "default"),
    ]
    keys = [
        (api_key, "argument"),
        (os.environ.get("PARETUNE_API_KEY"), "PARETUNE_API_KEY"),
        (_read(directory / "api-key"), str(directory / "api-key")),
    ]
    found_url, url_source = next((value, source) for value, source in urls if value)
    found_key, key_source = next(((value, source) for value, source in keys if value), (None, "not found"))
    assert found_url is not None
    return ClientConfig(directory, found_url.rstrip("/"), url_source, found_key, key_source)
