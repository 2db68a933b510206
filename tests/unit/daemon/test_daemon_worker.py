"""What becomes of the worker when a part of it ends that has to last."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from core.settings import Paths, Settings
from daemon.worker import WorkerProcess


async def breaks() -> None:
    raise KeyError("broken")


async def returns() -> None:
    return


async def is_cancelled() -> None:
    raise asyncio.CancelledError


async def lasts() -> None:
    await asyncio.sleep(60)


def process(folder: Path) -> tuple[WorkerProcess, threading.Event]:
    stop = threading.Event()
    return WorkerProcess(Settings(Paths(folder, folder), "sqlite://"), (), stop), stop


@pytest.mark.parametrize("part", [breaks, returns, is_cancelled])
async def test_a_part_that_is_over_ends_the_worker(
    part: Callable[[], Coroutine[Any, Any, None]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker, stop = process(tmp_path)
    worker.keep("a part", part())
    await asyncio.sleep(0.01)
    assert (stop.is_set(), worker.broken) == (True, True)
    assert "a part is over: the worker ends, to be started anew" in caplog.text


async def test_a_part_that_lasts_ends_with_the_worker(tmp_path: Path) -> None:
    worker, stop = process(tmp_path)
    task = worker.keep("a part", lasts())
    await asyncio.sleep(0.01)
    assert not stop.is_set()
    stop.set()
    task.cancel()
    await asyncio.wait([task])
    assert not worker.broken


async def test_what_is_done_once_may_fail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    worker, stop = process(tmp_path)
    for work in (breaks(), returns()):
        worker.do(work)
    await asyncio.sleep(0.01)
    assert (stop.is_set(), worker.broken) == (False, False)
    assert "KeyError: 'broken'" in caplog.text
