"""Turns at writing to one SQLite file, for several processes.

SQLite lets whoever asks at the right moment write next; who waits sleeps up to 100 ms between two looks, and a busy
process can keep another one out for a second (measured). Here a writer queues at two locks beside the file: it holds
"next" while it waits for "now". Who has just written and wants again finds "next" taken, so turns alternate.
It is a courtesy only: after WAIT_S a writer goes on without, and SQLite's own lock keeps the file whole.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOOK_S = 0.001
WAIT_S = 2.0  # longer than any transaction; who holds a lock longer was stopped in the middle


class Turns:
    """The two locks of one process; for one thread."""

    def __init__(self, database: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._next = os.open(f"{database}.next", flags, 0o600)
        self._now = os.open(f"{database}.now", flags, 0o600)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, and give it back."""
        until = time.monotonic() + WAIT_S
        waits = self._take(self._next, until)
        has = waits and self._take(self._now, until)
        if waits:
            fcntl.flock(self._next, fcntl.LOCK_UN)
        try:
            yield
        finally:
            if has:
                fcntl.flock(self._now, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the files, which frees what is held."""
        os.close(self._next)
        os.close(self._now)

    @staticmethod
    def _take(lock: int, until: float) -> bool:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() > until:
                    return False
                time.sleep(LOOK_S)
