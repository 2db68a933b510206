"""The one way from a request to the ledger: enter it, wake the dispatcher, answer 202."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Header
from fastapi.responses import JSONResponse

from api.context import Context
from control.access import Principal
from control.requests import Accepted, Ask
from core.states import Verb

Key = Annotated[
    str | None,
    Header(alias="Idempotency-Key", max_length=512, description="the same key and body give the first answer again"),
]


async def accept(
    ctx: Context, caller: Principal, verb: Verb, body: Mapping[str, Any], key: str | None
) -> JSONResponse:
    """Enter a request into the ledger. Raise Invalid, NotFound, Denied, Conflict."""
    done: Accepted = await ctx.requests.add(Ask(caller, verb, body, "api", key))
    if not done.repeated:
        ctx.wake()
    operations = [
        {"id": op.id, "verb": op.verb, "subject": op.subject, "name": op.subject_name, "state": op.state}
        for op in done.operations
    ]
    content = {"request": done.request_id, "operations": operations, "repeated": done.repeated}
    return JSONResponse(content, 202, {"Location": f"/v1/requests/{done.request_id}"})
