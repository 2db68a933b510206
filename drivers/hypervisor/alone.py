"""One change at a time for each instance, carried to its end: for hypervisors that do not see to that themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")


class Alone:
    """Part of a driver: changes of one instance follow each other, whoever waits for them."""

    def __init__(self) -> None:
        self._changing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._under_way: set[asyncio.Task[Any]] = set()

    async def alone(self, name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a change of an instance to its end, after all earlier ones: a caller that is cancelled leaves it."""
        lock = self._changing.setdefault(name, asyncio.Lock())

        async def locked() -> T:
            async with lock:
                return await work()

        task = asyncio.ensure_future(locked())
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone

    async def close(self) -> None:
        """End what callers have left behind; the connection is the transport's."""
        for task in list(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
