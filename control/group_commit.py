"""SQLite's one writer: a thread that commits all waiting changes in one transaction.

SQLite lets one writer in at a time and syncs at each commit, so changes that wait together are committed together; each
runs in a savepoint of its own, so that one's error undoes and meets only its caller.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from control.turns import Turns

HOLD_S = 0.03  # a group that has written this long commits, so that other processes get their turn


@dataclass(frozen=True)
class Job:
    """One change that waits, and who waits for it."""

    change: Callable[[sa.Connection], Any]
    future: Future[Any]


class GroupWriter:
    """The writer thread. translate: turns an exception of the database into one of ours; turns: among processes."""

    def __init__(self, engine: sa.Engine, translate: Callable[[Exception], Exception], turns: Turns | None) -> None:
        self._engine = engine
        self._turns = turns
        self._translate = translate
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="rackflow-writer", daemon=True)
        self._thread.start()

    def submit(self, change: Callable[[sa.Connection], Any]) -> Future[Any]:
        """Queue a change and return its future."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a change must not wait for another change: it would wait for itself")
        job = Job(change, Future())
        self._queue.put(job)
        return job.future

    def close(self) -> None:
        """Finish what is queued, then end the thread."""
        self._queue.put(None)
        self._thread.join(timeout=60)
        if self._turns is not None:
            self._turns.close()

    def _loop(self) -> None:
        waiting: deque[Job] = deque()
        open_ = True
        while open_ or waiting:
            if not waiting:
                open_ = self._take(waiting, block=True)
            while open_ and not self._queue.empty():
                open_ = self._take(waiting, block=False)
            if waiting:
                self._run(waiting)

    def _take(self, waiting: deque[Job], *, block: bool) -> bool:
        job = self._queue.get(block)
        if job is not None and job.future.set_running_or_notify_cancel():
            waiting.append(job)
        return job is not None

    def _run(self, waiting: deque[Job]) -> None:
        """Run changes until none waits or HOLD_S is over, commit, then tell their callers."""
        done: list[tuple[Job, Any, Exception | None]] = []
        try:
            with self._turns.turn() if self._turns else nullcontext(), self._engine.begin() as c:
                until = time.monotonic() + HOLD_S
                while waiting and (not done or time.monotonic() < until):
                    job = waiting.popleft()
                    done.append((job, None, None))
                    done[-1] = (job, *self._attempt(c, job))
        except Exception as error:  # nothing of this group was committed: everyone in it must know
            failed = done or [(waiting.popleft(), None, None)]
            for job, _, own in failed:
                job.future.set_exception(own or self._translate(error))
            return
        for job, value, own in done:
            if own is None:
                job.future.set_result(value)
            else:
                job.future.set_exception(own)

    def _attempt(self, c: sa.Connection, job: Job) -> tuple[Any, Exception | None]:
        first: list[Exception] = []
        try:
            with c.begin_nested():
                try:
                    return job.change(c), None
                except Exception as error:
                    first.append(error)  # undoing it may fail with an error of its own
                    raise
        except Exception as error:
            cause = first[0] if first else error
            raw: Any = c.connection.dbapi_connection
            if not raw.in_transaction:  # SQLite gave up the whole transaction (disk full, I/O error)
                raise cause from None
            return None, self._translate(cause)
