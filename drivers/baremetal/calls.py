"""Calls of a library that blocks: a small thread pool for each service, and a deadline for each call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from core.errors import RackflowError, Unreachable

T = TypeVar("T")
Translate = Callable[[Exception, str], RackflowError]  # (the library's error, what was being done)
_THREADS = 2  # one may hang until its own timeout while the other goes on


class Calls:
    """what: for messages ("the BMC of h1"); translate: the one function from the library's errors to ours."""

    def __init__(
        self, what: str, subject: str, limit_s: float, translate: Translate, *, threads: int = _THREADS
    ) -> None:
        self._what, self._subject, self._limit_s, self._translate = what, subject, limit_s, translate
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=what)
        self._closed = False

    async def __call__(self, doing: str, work: Callable[[], T]) -> T:
        """Run work in a thread. Raise our errors, Unreachable when it takes too long or after `close`."""
        if self._closed:
            raise Unreachable(f"the connection to {self._what} is closed", self._subject)
        try:
            future = asyncio.get_running_loop().run_in_executor(self._pool, work)
            return await asyncio.wait_for(future, self._limit_s)
        except RackflowError:
            raise
        except Exception as error:
            raise self._translate(error, doing) from error

    def close(self, last: Callable[[], object] | None = None) -> None:
        """Let the threads go, after a last piece of work; calls under way end with their own timeouts."""
        if not self._closed:
            self._closed = True
            if last is not None:
                self._pool.submit(last)
            self._pool.shutdown(wait=False)
