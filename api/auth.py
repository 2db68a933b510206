"""Who asks: the bearer token of a request, looked up in the record each time, so that a revoked one ends at once."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.context import Ctx
from control import access
from control.access import Principal
from core.errors import Denied

_bearer = HTTPBearer(auto_error=False, description="a token, as in the file that RACKFLOW_TOKEN_FILE names")
_FIX = "send `Authorization: Bearer TOKEN`; the first `rackflow up` wrote an admin token"


class Unauthenticated(Denied):
    """Nobody knows who asks; the same code as Denied, but 401."""

    http_status = 401


async def authenticated(
    ctx: Ctx, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Principal:
    """Return who holds the request's token. Raise Unauthenticated."""
    if credentials is None:
        raise Unauthenticated("no token was sent", fix=_FIX)
    token = credentials.credentials
    try:
        return await ctx.store.read(lambda c: access.authenticate(c, token))
    except Denied as error:
        raise Unauthenticated(error.message, error.subject, error.evidence, error.fix) from error


Caller = Annotated[Principal, Depends(authenticated)]
