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
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session
from sqlmodel import col

from api.auth import Principal
from infra.clock import utcnow
from infra.database.models import IdempotencyKey
from infra.digests import json_digest
from infra.errors import ConflictError
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

        The answer is stored in the same transaction as what ``create`` writes: both happen, or neither.

        Args:
            session: The write session of the request.
            principal: Whose key it is.
            payload: What was asked for; the same key with another payload is refused.
            create: Does the work and returns the answer.

        Raises:
            InvalidInputError: The key was used for another request.
            ConflictError: The same request is being answered at this moment.
        """
        if self.key is None:
            return create()
        if (answer := self.answered(session, principal, payload)) is not None:
            return answer
        session.exec(delete(IdempotencyKey).where(col(IdempotencyKey.created_at) <= utcnow() - KEPT))
        response = create()
        row = IdempotencyKey(
            owner=principal.id,
            route=self.route,
            key=self.key,
            request_hash=_digest(payload),
            status=response.status_code,
            response={"body": json.loads(bytes(response.body)), "location": response.headers.get("location")},
        )
        try:
            session.add(row)
            session.flush()
        except IntegrityError:
            raise ConflictError(
                "The same request is being answered at this moment.", hint="Send it again in a second."
            ) from None
        return response

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


Once = Annotated[Idempotency, Depends()]
