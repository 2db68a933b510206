"""Process: the real worker with flows of the tests instead of the product's."""

from __future__ import annotations

import asyncio
from typing import NoReturn

from control.store import Store
from daemon import dispatcher, timetable, worker
from daemon.flow_table import FlowEntry
from daemon.settings import load

ENTRIES = (FlowEntry("stage", "tests.prefect.stub_flows.stage"),)

SETTINGS = load()


async def part(_store: Store, _wake: object) -> NoReturn:
    """Stand in for a part of the worker that lasts; break when told to."""
    while not (SETTINGS.paths.run_dir / "break-part").exists():
        await asyncio.sleep(0.05)
    raise KeyError("told to break")


if __name__ == "__main__":
    timetable.run = part
    dispatcher.FORGOTTEN_AFTER_S = 2.0
    worker.run(SETTINGS, ENTRIES)
