"""A container's console: LXD's websocket, over the forwarded unix socket, as a stream of bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from core.errors import Unreachable
from drivers.hypervisor.lxd_api import LxdApi
from drivers.transport.base import ByteStream

_OPEN_S = 10.0
_SIZE = {"width": 80, "height": 24}


class ConsoleStream(ByteStream):
    """Messages as bytes; what one read leaves over, the next one gets."""

    def __init__(self, socket: ClientConnection, subject: str) -> None:
        self._socket = socket
        self._subject = subject
        self._rest = b""

    async def read(self, n: int = 65536) -> bytes:
        """Return what came, at most n bytes; b"" when the container has ended."""
        with suppress(ConnectionClosed):
            while not self._rest:  # LXD sends empty messages, too
                found = await self._socket.recv()
                if isinstance(found, str):  # LXD says by a text message that the output has ended
                    return b""
                self._rest = found
        taken, self._rest = self._rest[:n], self._rest[n:]
        return taken

    async def write(self, data: bytes) -> None:
        """Type. Raise Unreachable (closed)."""
        try:
            await self._socket.send(data)
        except ConnectionClosed as error:
            raise Unreachable("the console was closed", self._subject) from error


@asynccontextmanager
async def opened(api: LxdApi, name: str, subject: str) -> AsyncIterator[ConsoleStream]:
    """Open the console of a container that runs. Closing the control socket is what makes LXD let it go."""
    begun = await api.begin(
        "post", "instances", name, "console", json={"type": "console", **_SIZE}, subject=subject,
        doing=f"open the console of {name}",
    )  # fmt: skip
    fds = begun["metadata"]["fds"]
    path = f"ws://lxd/1.0/operations/{begun['id']}/websocket?secret="
    async with AsyncExitStack() as stack:
        try:
            data, _ = [
                await stack.enter_async_context(
                    unix_connect(str(api.socket), path + fds[fd], open_timeout=_OPEN_S, compression=None)
                )
                for fd in ("0", "control")
            ]
        except (WebSocketException, OSError) as error:
            seen = {"seen": repr(error)}
            raise Unreachable(f"the console of {name} on {api.host} does not answer", subject, seen) from error
        yield ConsoleStream(data, subject)
