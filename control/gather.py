"""Small writes or reads that come at the same time, as one: a thousand steps that begin together cost few statements.

While one batch is being written, what comes meanwhile waits and is the next one. Without a pause before it, a thousand
steps would come in batches of nine (measured), each with a commit of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from core.errors import Retryable

T = TypeVar("T")
R = TypeVar("R")
Write = Callable[[Any, Sequence[T]], Sequence[R | Exception]]
Run = Callable[[Callable[[Any], Any]], Awaitable[Any]]
MOST = 1000  # in one transaction
EACH_S, LONGEST_S = 1e-4, 0.04  # how long a batch waits for those who come soon: for each of them, and for all


class Gather:
    """The writes of one event loop, of one kind: `write` makes those of some items, and says of each how it went.

    run: the store's `write` or `read`; others: how many may have something to write soon.
    """

    def __init__(self, run: Run, write: Write[T, R], others: Callable[[], int] = lambda: 0) -> None:
        self._run = run
        self._others = others
        self._write = write
        self._waiting: list[tuple[Any, asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None

    async def add(self, item: Any) -> Any:
        """Have an item written and return the answer to it. Raise its own error."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_all())
        return await future

    async def _write_all(self) -> None:
        while self._waiting:
            await asyncio.sleep(min(LONGEST_S, EACH_S * (len(self._waiting) + self._others())))
            batch = [one for one in self._waiting[:MOST] if not one[1].done()]  # who was cancelled wants it no more
            del self._waiting[:MOST]
            if batch:
                await self._batch(batch)

    async def _batch(self, batch: Sequence[tuple[Any, asyncio.Future[Any]]]) -> None:
        """Write a batch; when that is refused as a whole, each item alone, so that every one gets its own error.

        What fails because the database is away may be written all the same: that is not written twice.
        """
        items = [item for item, _ in batch]
        try:
            answers = await self._run(lambda c: self._write(c, items))
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, Retryable):
                await asyncio.gather(*(self._batch([one]) for one in batch))
                return
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
