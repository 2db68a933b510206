"""/v1/instances/{name}/console and /v1/console/{ticket}: an instance's serial console or screen, as a WebSocket."""

from __future__ import annotations

from fastapi import APIRouter, WebSocket
from fastapi.responses import JSONResponse

from api import console, models
from api.auth import Caller
from api.bodies import Console
from api.context import Ctx
from api.errors import answer_to
from core.errors import RackflowError

router = APIRouter(tags=["instances"])


@router.post("/instances/{name}/console", status_code=201, response_model=models.ConsoleTicket)
async def open_console(ctx: Ctx, caller: Caller, name: str, body: Console | None = None) -> JSONResponse:
    """Make a ticket for an instance's serial console or screen (VNC): it opens one WebSocket, within 30 seconds.

    Of kind ticket: have the hypervisor make one for its own viewers (VMware), which leads past rackflow.
    """
    return JSONResponse(await console.ticket(ctx, caller, name, body.kind if body else "serial"), 201)


@router.websocket("/console/{ticket}")
async def use_console(ctx: Ctx, socket: WebSocket, ticket: str) -> None:
    """Carry bytes both ways as binary messages; whoever holds the ticket needs no token."""
    try:
        async with console.opened(ctx, ticket) as stream:
            await console.bridge(socket, stream)
    except RackflowError as error:
        await console.refuse(socket, answer_to(error), error.message)
