"""Processes of a lab that are told by their command lines: there is one lab on a machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

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


def end(at: int, *words: str) -> None:
    """Ask them to end, and wait until they have."""
    for pid in list(like(at, *words)):
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue
    hosts.wait_until(lambda: not list(like(at, *words)))
