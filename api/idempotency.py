"""``Idempotency-Key``: a POST that is sent twice creates once, and both get the same answer."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated

from fastapi import Depends
from fastapi import Header
from fastapi import Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from sqlalchemy import delete
from sqlmodel import Session
from sqlmodel import col

from api.auth import Principal
from infra.clock import utcnow
from infra.database.models import IdempotencyKey
from infra.database.upsert import insert_into
from infra.digests import json_digest
from infra.errors import InvalidInputError

KEPT = timedelta(days=1)
"""How long an answer is remembered."""


class Idempotency:
    """The ``Idempotency-Key`` of one request, or its absence."""

    def __init__(
        self,
        request: Request,
        idempotency_key: Annotated[
            str | None,
            Header(
                min_length=1,
                max_length=200,
                description="A new text for every intended creation; the same text again gets the same answer.",
            ),
        ] = None,
    ) -> None:
        self.key = idempotency_key
        self.route = f"{request.method} {request.url.path}"

    def answered(self, session: Session, principal: Principal, payload: object) -> JSONResponse | None:
        """Return the answer that this key was given before, if it was: ask before long work outside of a transaction.

        Args:
            session: Any session.
            principal: Whose key it is.
            payload: As for :meth:`run`.

        Raises:
            InvalidInputError: The key was used for another request.
        """
        known = None if self.key is None else session.get(IdempotencyKey, (principal.id, self.route, self.key))
        if known is None or known.created_at <= utcnow() - KEPT:
            return None
        return self._replay(known, _digest(payload))

    def run(
        self, session: Session, principal: Principal, payload: object, create: Callable[[], JSONResponse]
    ) -> JSONResponse:
        """Run ``create`` unless it ran before under this key.

        The answer is stored in the same transaction as what ``create`` writes: both happen, or neither. Of requests
        that come at the same time one creates; the others wait for its end and answer the same.

        Args:
            session: The write session of the request.
            principal: Whose key it is.
            payload: What was asked for; the same key with another payload is refused.
            create: Does the work and returns the answer.

        Raises:
            InvalidInputError: The key was used for another request.
        """
        if self.key is None:
            return create()
        while not self._claim(session, principal, payload):
            if (answer := self.answered(session, principal, payload)) is not None:
                return answer
        response = create()
        row = session.get_one(IdempotencyKey, (principal.id, self.route, self.key))
        row.status = response.status_code
        row.response = {"body": json.loads(bytes(response.body)), "location": response.headers.get("location")}
        session.add(row)
        session.flush()
        return response

    def _claim(self, session: Session, principal: Principal, payload: object) -> bool:
        """Write the key's row, still without an answer, unless there is one.

        Where another transaction is about to write it, the database waits until that has ended.
        """
        session.exec(delete(IdempotencyKey).where(col(IdempotencyKey.created_at) <= utcnow() - KEPT))
        claim = insert_into(session, IdempotencyKey).values(
            owner=principal.id,
            route=self.route,
            key=self.key,
            request_hash=_digest(payload),
            status=0,
            response={},
            created_at=utcnow(),
        )
        written = claim.on_conflict_do_nothing().returning(col(IdempotencyKey.key))
        return session.execute(written).first() is not None

    @staticmethod
    def _replay(known: IdempotencyKey, digest: str) -> JSONResponse:
        if known.request_hash != digest:
            raise InvalidInputError(
                "This Idempotency-Key was used for another request.",
                hint="Use a new key for every new request; repeat a key only with the same body.",
                errors=[{"field": "Idempotency-Key", "message": "belongs to another request"}],
            )
        headers = {"Idempotent-Replay": "true"}
        if known.response.get("location"):
            headers["Location"] = known.response["location"]
        return JSONResponse(known.response["body"], status_code=known.status, headers=headers)


def _digest(payload: object) -> str:
    return json_digest(jsonable_encoder(payload))


def _once_by_url(request: Request) -> Idempotency:
    return Idempotency(request, "")  # which no header can be


Once = Annotated[Idempotency, Depends()]
OnceByUrl = Annotated[Idempotency, Depends(_once_by_url)]
"""For what can succeed only once at its URL: whoever asks again gets the same answer, and no key is needed."""
