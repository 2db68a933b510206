"""A line over simulated hosts for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from drivers.fake_world import world
from tasks.runtime import set_runtime
from tests.integration.line import Line, make_line, without_prefect
from tests.integration.pump import Pump


@pytest_asyncio.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    """Three simulated hosts of 16 cores and 64 GiB."""
    with without_prefect():
        found = await make_line(tmp_path)
        yield found
        await found.runtime.pool.close()
        await found.store.close()
    set_runtime(None)
    world.reset()


@pytest_asyncio.fixture
async def pump(line: Line) -> AsyncIterator[Pump]:
    found = Pump(line)
    yield found
    await found.stop()
