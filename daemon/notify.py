"""How a process tells the supervisor that it is ready: one datagram, as in systemd's sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

SOCKET_VARIABLE = "RACKFLOW_NOTIFY_SOCKET"
NAME_VARIABLE = "RACKFLOW_PROCESS"


def ready() -> None:
    """Say that this process now does its work; nothing happens when no supervisor listens."""
    path, name = os.environ.get(SOCKET_VARIABLE), os.environ.get(NAME_VARIABLE)
    if not path or not name:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):
        sender.sendto(f"{name} {os.getpid()} READY".encode(), path)


def listen(path: Path) -> socket.socket:
    """Open the supervisor's end, non-blocking, for this user only."""
    path.unlink(missing_ok=True)
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(path))
    path.chmod(0o600)
    receiver.setblocking(False)
    return receiver


def parse(message: bytes) -> tuple[str, int] | None:
    """Return (process name, pid) of a READY datagram, or None for anything else."""
    words = message.decode(errors="replace").split()
    if len(words) != 3 or words[2] != "READY" or not words[1].isdigit():
        return None
    return words[0], int(words[1])
