"""Time that passes without waiting: an event loop that jumps to its next timer, and the record's clock with it."""

from __future__ import annotations

import asyncio
import selectors
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from typing import Any, TypeVar
from unittest.mock import patch

import core.clock

T = TypeVar("T")
_skipped_s = 0.0


class Stuck(Exception):
    """Nothing is left that could wake the program up."""


class OutOfTime(Exception):
    """A case took too much of real time: something goes round and round."""


def skip(seconds: float) -> None:
    """Let time pass."""
    global _skipped_s
    _skipped_s += seconds


class _Jumping(selectors.DefaultSelector):
    """Skips the time that it is asked to wait. Nothing here comes from another thread or process."""

    until: float = float("inf")  # time.monotonic()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if time.monotonic() > self.until:
            self.until = float("inf")
            raise OutOfTime
        if timeout is None:
            raise Stuck
        if timeout > 0:
            skip(timeout)
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop without waiting and without threads."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return super().time() + _skipped_s

    def bound(self, seconds: float) -> None:
        """Raise OutOfTime in the running program after that much real time."""
        self._jumping.until = time.monotonic() + seconds

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run it here and now."""
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done


class _Shifted(datetime):
    """What core.clock takes for datetime."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + timedelta(seconds=_skipped_s)


class _Ended:
    """A process that has ended."""

    def __init__(self, done: subprocess.CompletedProcess[bytes]) -> None:
        self.returncode, self._said = done.returncode, (done.stdout, done.stderr)

    async def communicate(self) -> tuple[bytes, bytes]:
        return self._said


def _straight(argv: Sequence[str], env: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(argv, capture_output=True, check=False, env=env)


async def _run_straight(*argv: str, stdout: int, stderr: int, env: dict[str, str]) -> _Ended:
    return _Ended(_straight(argv, env))


@contextmanager
def without_waiting() -> Iterator[None]:
    """Let the record's clock show the time that was skipped, and wait for qemu-img without the loop."""
    with patch.object(core.clock, "datetime", _Shifted), patch("asyncio.create_subprocess_exec", _run_straight):
        yield


def run(work: Coroutine[Any, Any, T], *, within_s: float) -> T:
    """Run a program in a loop of its own. Raise Stuck, OutOfTime, what it raises."""
    loop = JumpingLoop()
    try:
        loop.bound(within_s)
        return loop.run_until_complete(work)
    finally:
        loop.bound(within_s)
        _end_tasks(loop)
        loop.close()


def _end_tasks(loop: JumpingLoop) -> None:
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if not left:
        return
    try:
        loop.run_until_complete(_ended(left))
    except (Stuck, OutOfTime, RuntimeError):
        return


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
