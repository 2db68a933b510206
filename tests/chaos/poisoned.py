"""One instance whose steps always fail for its own reasons, among a hundred good ones: what it costs these."""

from __future__ import annotations

import asyncio
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from unittest.mock import patch

from core.errors import Busy, HostFault, Invalid, RackflowError, Unreachable
from core.states import OperationState, Verb
from drivers.fake_world import ANY, world
from tasks.actions import ACTIONS, Action
from tasks.ledger import Seen
from tasks.work import Work
from tests.chaos import clock
from tests.chaos.scene import Kept, first_line, keep, wake
from tests.integration.line import Line, without_prefect

GOOD = 100
BATCH = 10  # that come together
NAME = "poisoned"
LATENCIES_S = {"storage.ensure_volume": 0.1, "hypervisor.define": 0.2, "hypervisor.start": 0.5}
POISONS: dict[str, RackflowError | None] = {
    "always busy": Busy("it is being changed", f"instance/{NAME}"),
    "blames its host": HostFault("the definition is refused", f"instance/{NAME}"),
    "no answer": Unreachable("the monitor does not answer", f"instance/{NAME}"),
    "refused": Invalid("no such machine type", f"instance/{NAME}"),
    "hangs": None,
}


class Poisoned:
    """Pairs of runs, in a folder of their own."""

    def __init__(self, good: int = GOOD) -> None:
        self.good = good

    def __enter__(self) -> Poisoned:
        self._temporary = TemporaryDirectory(prefix="poisoned-")
        self._folder = Path(self._temporary.name)
        with without_prefect(), clock.without_waiting():
            self._kept = clock.run(self._make(), within_s=60)
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.cleanup()

    async def _make(self) -> Kept:
        return await keep(await first_line(self._folder / "first"), self._folder / "kept")

    def ratio(self, poison: str, pairs: int) -> float:
        """Return the median, over pairs of runs, of the good ones' median time to running with it to that without."""
        return median(self.run(poison) / self.run(None) for _ in range(pairs))

    def run(self, poison: str | None) -> float:
        """Return the median seconds that the good ones took from request to running."""
        with without_prefect(), clock.without_waiting(), patch.dict(ACTIONS, define=_spoilt(poison)):
            return clock.run(self._run(poison is not None), within_s=120)

    async def _run(self, poisoned: bool) -> float:
        line = await wake(self._kept, self._folder / "run")
        for verb, seconds in LATENCIES_S.items():
            world.slow(ANY, verb, seconds)
        if poisoned:
            line.submit(Verb.DEPLOY, {"instances": [_spec(NAME)]})
        ids: list[str] = []
        rounds: list[asyncio.Task[object]] = []
        for first in range(0, self.good, BATCH):
            ids += line.submit(Verb.DEPLOY, {"instances": [_spec(f"good-{first + n}") for n in range(BATCH)]})
            rounds.append(asyncio.create_task(line.work()))
            await asyncio.sleep(2)
        await self._wait(line, ids, rounds)
        ended = [op for op in line.operations(ids) if op.finished_at is not None]
        for job in rounds:
            job.cancel()
        await asyncio.gather(*rounds, return_exceptions=True)
        await line.runtime.pool.close()
        return median((op.finished_at - op.created_at).total_seconds() for op in ended if op.finished_at)

    async def _wait(self, line: Line, ids: list[str], rounds: list[asyncio.Task[object]]) -> None:
        for _ in range(60):
            if all(op.finished_at for op in line.operations(ids)):
                break
            rounds.append(asyncio.create_task(line.work()))
            await asyncio.sleep(2)
        bad = [op for op in line.operations(ids) if op.state is not OperationState.DONE]
        assert bad == [], [(op.subject_name, op.state, op.reason) for op in bad[:3]]


def _spec(name: str) -> dict[str, object]:
    return {"name": name, "image": "vm", "cpu": 0.25, "memory": 256}


def _spoilt(poison: str | None) -> Action:
    define = ACTIONS["define"]

    async def act(w: Work) -> Seen:
        if w.view.name != NAME or poison is None:
            return await define(w)
        error = POISONS[poison]
        if error is None:
            await asyncio.Event().wait()
        assert error is not None
        raise error

    return act
