"""How one process tells the worker that there is something to do: an empty datagram, never waited for."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path


class Waker:
    """Sends wake-ups; a worker that is not there finds the work by itself when it comes back."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def __call__(self) -> None:
        """Wake the worker. A full queue means that it is being woken already."""
        with contextlib.suppress(OSError):
            self._socket.sendto(b"", self._path)


def listen(path: Path) -> socket.socket:
    """Open the worker's end, non-blocking, for this user only."""
    path.unlink(missing_ok=True)
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(path))
    path.chmod(0o600)
    receiver.setblocking(False)
    return receiver


def drain(receiver: socket.socket) -> None:
    """Take all datagrams that wait: however many, they mean one look."""
    with contextlib.suppress(BlockingIOError):
        while True:
            receiver.recv(16)
