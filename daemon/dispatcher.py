"""Hands pending operations, in batches, to Prefect flow runs: the only file that starts them.

A round claims everything that is due. A flow run costs Prefect about half a CPU second, so rounds keep a distance that
grows with the number of runs under way: one request starts at once, a burst is gathered into a few runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

from prefect.client.schemas.objects import FlowRun

from control import operations
from control.operations import Operation, Stale
from control.store import Store
from core.errors import RackflowError
from core.ids import new_id
from core.states import OperationState
from daemon.flow_table import batches, run_name
from daemon.prefect_worker import PASSING, InProcessWorker
from tasks.retry import later

log = logging.getLogger("rackflow.dispatcher")

FORGOTTEN_AFTER_S = 20.0  # an operation that we hold and nobody runs is given back after that
_CUT_OFF = "its flow run ended without ending it; it goes on where it stopped"


class Claim(Protocol):
    """What the dispatcher needs of the worker's runtime."""

    @property
    def worker_id(self) -> str: ...
    @property
    def active(self) -> dict[str, int]: ...
    def leave(self, epochs: Mapping[str, int]) -> None: ...


def round_gap_s(runs: int) -> float:
    """Return the least time between two rounds while that many flow runs are under way."""
    return min(2.0, 0.1 + 0.2 * runs)


def backoff_s(failures: int) -> float:
    """Return how long to leave Prefect's server alone after that many failed rounds in a row."""
    return float(min(30, 2 ** min(failures, 5)))


class Dispatcher:
    """One per worker process. deployments: flow name -> deployment id."""

    def __init__(
        self, store: Store, claim: Claim, worker: InProcessWorker, deployments: dict[str, UUID], look_s: float
    ) -> None:
        self._store = store
        self._claim = claim
        self._worker = worker
        self._deployments = deployments
        self._look_s = look_s
        self._woken = asyncio.Event()
        self._idle_since: dict[str, float] = {}
        self._endings: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Have the ledger looked at now."""
        self._woken.set()

    async def run(self) -> None:
        """Dispatch until cancelled. Nothing that goes wrong in a round ends it."""
        failures = 0
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self._look_s)
            self._woken.clear()
            try:
                await self.round()
                failures = 0
            except (*PASSING, RackflowError) as error:
                failures += 1
                log.warning("dispatching failed: %s; again in %.0f s", error, backoff_s(failures))
                await asyncio.sleep(backoff_s(failures))
            await asyncio.sleep(round_gap_s(len(self._worker.runs)))

    async def round(self) -> int:
        """Claim what is due and start its flow runs; return how many operations. Raise what Prefect's client raises."""
        await self._give_back_forgotten()
        claimed = await self._store.write(lambda c: operations.claim_pending(c, self._claim.worker_id))
        results = await asyncio.gather(
            *(self._start(flow, batch) for flow, batch in batches(claimed).items()), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return len(claimed)

    async def _start(self, flow: str, batch: list[Operation]) -> None:
        epochs = {operation.id: operation.epoch for operation in batch}
        ids = list(epochs)
        self._claim.active.update(epochs)
        try:
            run = await self._worker.create_run(
                self._deployments[flow], name=run_name(batch), parameters={"operations": ids},
                idempotency_key=f"batch-{new_id()}",
            )  # fmt: skip
        except BaseException:
            self._claim.leave(epochs)
            await self._store.write(lambda c: operations.release(c, ids))
            raise
        self._worker.begin(run, ended=lambda: self._later(self._give_back(epochs)))
        self._later(self._note_run(ids, run))

    async def _note_run(self, ids: Sequence[str], run: FlowRun) -> None:
        await self._store.write(lambda c: operations.set_flow_run(c, ids, str(run.id)))

    async def _give_back(self, epochs: Mapping[str, int]) -> None:
        """A flow run is over: what it left unfinished, and still holds, is to be claimed again.

        What it gave back earlier may be another run's of ours by now, under a newer epoch.
        """
        self._claim.leave(epochs)
        held = await self._store.read(lambda c: operations.active_of(c, self._claim.worker_id))
        for operation in held:
            if epochs.get(operation.id) == operation.epoch:
                await self._let_go(operation)
        self.wake()

    async def _give_back_forgotten(self) -> None:
        """Safety net: an operation that we hold but no flow of ours runs goes back to the others."""
        held = await self._store.read(lambda c: operations.active_of(c, self._claim.worker_id))
        at = time.monotonic()
        idle = {operation.id: operation for operation in held if operation.id not in self._claim.active}
        self._idle_since = {one: self._idle_since.get(one, at) for one in idle}
        for one, since in self._idle_since.items():
            if at - since > FORGOTTEN_AFTER_S:
                await self._let_go(idle[one])

    async def _let_go(self, operation: Operation) -> None:
        """Give an operation back: at once when it was being undone, else after a pause that grows."""
        log.warning("operation %s (%s %s): %s", operation.id, operation.verb, operation.subject_name, _CUT_OFF)
        with contextlib.suppress(Stale):  # somebody else has it: all the better
            if operation.state is OperationState.COMPENSATING:
                await self._store.write(lambda c: operations.release(c, [operation.id]))
            else:
                await self._store.write(
                    lambda c: operations.postpone(c, operation, _CUT_OFF, later(operation.attempts))
                )

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(_logged(work))
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except RackflowError as error:
        log.warning("the ledger could not be written: %s; the next look repairs it", error)
