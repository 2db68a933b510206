"""Processes of a lab that are told by their command lines: there is one lab on a machine."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from core.errors import HostFault
from lab import hosts


def like(at: int, *words: str) -> Iterator[int]:
    """Yield the processes whose command lines have these words, from the at-th one on."""
    wanted = [word.encode() for word in words]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            argv = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended while we looked
        if argv[at : at + len(wanted)] == wanted:
            yield int(entry.name)


def until_told(process: subprocess.Popen[bytes], log: Path, begins: str, within_s: float, what: str) -> str:
    """Return the first line of a process's log that begins so. Raise HostFault, with it killed: none comes in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        ended = process.poll() is not None  # before the log is read: its last line counts
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith(begins):
                return line
        if ended:
            break
        time.sleep(0.05)
    process.kill()
    raise HostFault(f"{what} does not come up: {log.read_text(errors='replace')[-300:].strip()}", "lab")


def end(at: int, *words: str) -> None:
    """Ask them to end, and wait until they have."""
    for pid in list(like(at, *words)):
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue
    hosts.wait_until(lambda: not list(like(at, *words)))
