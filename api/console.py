"""Consoles and screens of instances: from a WebSocket to the host, over this process's own connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from fastapi import WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse
from starlette.websockets import WebSocketState

from api import guests
from api.context import Context
from api.tickets import VALID_S
from control.access import Principal
from core.clock import now, rfc3339
from core.errors import Conflict
from core.states import InstanceState

if TYPE_CHECKING:
    from drivers.hypervisor.powers import Tickets
    from drivers.transport.base import ByteStream

_METHODS = {"serial": "console", "vnc": "display", "ticket": "ticket"}  # method, and capability
_RUNS = (InstanceState.RUNNING, InstanceState.SUSPENDED)
_REASON_BYTES = 120  # a closing message holds 125


async def ticket(ctx: Context, caller: Principal, name: str, kind: str) -> dict[str, Any]:
    """Make a ticket, or have the hypervisor make one. Raise NotFound, Conflict (it does not run), Unsupported."""
    instance = await guests.find(ctx, caller, name)
    if instance.state not in _RUNS:
        raise Conflict(
            f"instance {instance.name} is {instance.state}, so it has no console", f"instance/{instance.name}",
            {"state": instance.state}, f"rackflow instance start {instance.name}",
        )  # fmt: skip
    guests.host_of(instance, _METHODS[kind])
    if kind == "ticket":
        there = cast("Tickets", await guests.hypervisor(ctx, instance, kind))
        return {"kind": kind, **asdict(await there.ticket(instance.on_host))}
    text = ctx.tickets.issue(caller, instance.id, kind)
    until = now() + timedelta(seconds=VALID_S)
    return {"ticket": text, "kind": kind, "path": f"/v1/console/{text}", "expires_at": rfc3339(until)}


@asynccontextmanager
async def opened(ctx: Context, text: str) -> AsyncIterator[ByteStream]:
    """Use a ticket up, and hold what it opens. Raise Denied, NotFound, Conflict, Unsupported, Unreachable."""
    found = ctx.tickets.redeem(text)
    instance = await guests.find(ctx, found.caller, found.instance_id)  # it may be gone, or another's, by now
    method = _METHODS[found.kind]
    hypervisor = await guests.hypervisor(ctx, instance, method)
    opener = cast("Callable[[str], AbstractAsyncContextManager[ByteStream]]", getattr(hypervisor, method))
    async with opener(instance.on_host) as stream:
        yield stream


async def bridge(socket: WebSocket, stream: ByteStream) -> None:
    """Carry bytes both ways until one side closes; each side is read only as fast as the other one takes it.

    A client that is gone without a word is found by the server's own pings (uvicorn, every 20 s).
    """
    await socket.accept()
    ways = [asyncio.create_task(_up(socket, stream)), asyncio.create_task(_down(socket, stream))]
    try:
        ended, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
    for way in ended:
        error = way.exception()
        if error is not None and not isinstance(error, WebSocketDisconnect):
            raise error
    await _close(socket)


async def _up(socket: WebSocket, stream: ByteStream) -> None:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        await stream.write(message.get("bytes") or (message.get("text") or "").encode())


async def _down(socket: WebSocket, stream: ByteStream) -> None:
    while data := await stream.read():
        await socket.send_bytes(data)


async def refuse(socket: WebSocket, answer: JSONResponse, reason: str) -> None:
    """Say why nothing is opened, or what was cut off: as an HTTP answer, or, once it is open, as it is closed."""
    if socket.application_state is WebSocketState.CONNECTING:
        await socket.send_denial_response(answer)
    else:
        await _close(socket, 1011, reason)


async def _close(socket: WebSocket, code: int = 1000, reason: str = "") -> None:
    if WebSocketState.DISCONNECTED not in (socket.application_state, socket.client_state):
        with suppress(RuntimeError, WebSocketDisconnect):  # it went at this moment
            await socket.close(code, reason.encode()[:_REASON_BYTES].decode(errors="ignore"))
