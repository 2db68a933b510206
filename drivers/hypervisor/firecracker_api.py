"""Firecracker's API: HTTP over a unix socket of the host, through a channel of its SSH connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any

import httpcore

from core.errors import Busy, HostFault, Unreachable
from drivers.transport.base import ByteStream, Transport


class _Stream(httpcore.AsyncNetworkStream):
    """A connection of the transport, as httpcore wants it."""

    def __init__(self, stream: ByteStream, opened: AsyncExitStack) -> None:
        self._stream = stream
        self._opened = opened

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if buffer:
            await self._stream.write(buffer)

    async def aclose(self) -> None:
        await self._opened.aclose()

    def get_extra_info(self, info: str) -> Any:
        return None


class _Sockets(httpcore.AsyncNetworkBackend):
    """Opens unix sockets of a host."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None
    ) -> httpcore.AsyncNetworkStream:
        opened = AsyncExitStack()
        return _Stream(await opened.enter_async_context(self._transport.connect(path)), opened)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class FirecrackerApi:
    """Requests to the microVMs of one host."""

    def __init__(self, transport: Transport) -> None:
        self._sockets = _Sockets(transport)
        self._host = transport.endpoint.name

    async def call(
        self, socket: str, method: str, path: str, body: Any = None, *, subject: str, doing: str,
        timeout_s: float = 30.0,
    ) -> Any:  # fmt: skip
        """Return the JSON of the answer, None if it is empty.

        Raise Busy (it has just ended), HostFault (refused), Unreachable (no answer in time).
        """
        content = None if body is None else json.dumps(body).encode()
        headers: dict[bytes | str, bytes | str] = {"Host": "localhost", "Accept": "application/json"}
        if content is not None:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
        try:
            async with asyncio.timeout(timeout_s), httpcore.AsyncConnectionPool(
                uds=socket, network_backend=self._sockets
            ) as pool:
                answer = await pool.request(method, f"http://localhost{path}", headers=headers, content=content)
        except TimeoutError as error:
            raise Unreachable(
                f"Firecracker on {self._host} did not answer within {timeout_s:g} s while {doing}", subject,
                {"request": f"{method} {path}"}, "see what the host is busy with",
            ) from error  # fmt: skip
        except (HostFault, httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise Busy(
                f"nobody answers at the API while {doing} on {self._host}", subject,
                {"request": f"{method} {path}", "seen": str(error)}, "look again: it may have just ended",
            ) from error
        return self._result(answer, f"{method} {path}", subject, doing)

    def _result(self, answer: httpcore.Response, request: str, subject: str, doing: str) -> Any:
        try:
            found = json.loads(answer.content) if answer.content.strip() else None
        except ValueError:
            found = {"fault_message": answer.content[:500].decode(errors="replace")}
        if answer.status < 300:
            return found
        said = str((found or {}).get("fault_message", "")) or f"status {answer.status}"
        raise HostFault(
            f"Firecracker on {self._host} refused {doing}: {said}", subject,
            {"request": request, "status": answer.status, "seen": said}, "see the evidence, and the VM's log",
        )
