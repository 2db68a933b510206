"""Small helpers that all suites share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from core.errors import Retryable

T = TypeVar("T")
Moment = float | int  # float: seconds; int: turns of the event loop, which is all that a simulated call takes


async def settle(call: Callable[[], Awaitable[T]], attempts: int = 40, pause_s: float = 0.25) -> T:
    """Call until it no longer says "try again", as tasks do after a killed attempt."""
    for _ in range(attempts):
        try:
            return await call()
        except Retryable:
            await asyncio.sleep(pause_s)
    return await call()


async def cancelled_after(call: Awaitable[Any], moment: Moment) -> bool:
    """Cancel a call at a moment after its begin, as a killed worker does; say whether it was still under way."""
    task = asyncio.ensure_future(call)
    if isinstance(moment, int):
        for _ in range(moment):
            await asyncio.sleep(0)
    else:
        await asyncio.wait({task}, timeout=moment)
    task.cancel()
    outcome = (await asyncio.gather(task, return_exceptions=True))[0]
    if isinstance(outcome, asyncio.CancelledError):
        return True
    if isinstance(outcome, BaseException) and not isinstance(outcome, Retryable):
        raise outcome
    return False
