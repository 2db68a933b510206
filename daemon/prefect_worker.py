"""The in-process Prefect worker: runs flows in this process's own event loop, at no subprocess per run.

Two ways lead to a run. A run that was created elsewhere (Prefect's UI, a schedule, a bare API call) waits in the work
pool; an event or the poll finds it. A run that the dispatcher creates is begun here at once (`begin`), in state
Pending, so that no poll can take it: it belongs to the worker that claimed its operations. Prefect 3.8.8.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import anyio.abc
import httpx
from prefect import Flow
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)  # fmt: skip
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import Abort, PrefectException
from prefect.flows import load_flow_from_flow_run
from prefect.states import Cancelled, Crashed, Pending
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult

from core.clock import now
from daemon.flow_engine import adapted, run_flow

log = logging.getLogger("rackflow.worker")

TYPE = "rackflow-in-process"
_UNDER_WAY = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
_ORPHANS_EVERY = 4  # beats between two looks for runs whose end was missed
WORKER_LABEL = "prefect.worker.name"
# What Prefect's client may raise while its server comes and goes, or answers what it cannot make sense of.
PASSING = (httpx.HTTPError, PrefectException, ValueError, RuntimeError, OSError)


class InProcessResult(BaseWorkerResult):
    """How a run ended, for Prefect's worker: always well, for the engine itself reports the run's state."""


class InProcessWorker(BaseWorker[BaseJobConfiguration, BaseVariables, InProcessResult]):
    """A work pool's worker without subprocesses. flows: those known by deployment id, others are loaded when met."""

    type = TYPE
    job_configuration = BaseJobConfiguration
    _description = "Runs flows inside rackflow's worker process."

    def __init__(self, work_pool_name: str, name: str) -> None:
        super().__init__(work_pool_name=work_pool_name, name=name)
        self.flows: dict[UUID, Flow[..., Any]] = {}
        self.runs: dict[UUID, asyncio.Task[None]] = {}
        self._poke = asyncio.Event()

    async def run(
        self, flow_run: FlowRun, configuration: BaseJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> InProcessResult:
        """Run a flow run that was found in the work pool."""
        if task_status is not None:
            task_status.started(os.getpid())
        await asyncio.wait([self.begin(flow_run)])
        return InProcessResult(status_code=0, identifier=self.name)

    def begin(self, flow_run: FlowRun, ended: Callable[[], None] | None = None) -> asyncio.Task[None]:
        """Start a flow run at once and return its task, which never raises. ended: called when it is over."""
        task = asyncio.create_task(self._execute(flow_run), name=f"flow run {flow_run.name}")
        self.runs[flow_run.id] = task

        def over(_: asyncio.Task[None]) -> None:
            self.runs.pop(flow_run.id, None)
            if ended is not None:
                ended()

        task.add_done_callback(over)
        return task

    def poke(self) -> None:
        """Have the work pool looked at now."""
        self._poke.set()

    async def poll(self, every_s: float) -> None:
        """Look for runs whenever poked, and regularly. Goes on whatever happens to Prefect's server."""
        pause_s = every_s
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._poke.wait(), pause_s)
            self._poke.clear()
            try:
                await self.get_and_submit_flow_runs()
                pause_s = every_s
            except PASSING as error:
                pause_s = min(30.0, pause_s * 2)
                log.warning("Prefect's server does not answer (%s); next look in %.0f s", error, pause_s)

    async def keep_registered(self, every_s: float) -> None:
        """Tell Prefect's server regularly that this worker lives, and of runs whose end it has missed."""
        for beat in itertools.count(1):
            await asyncio.sleep(every_s)
            try:
                await self.sync_with_backend()
                if beat % _ORPHANS_EVERY == 0:
                    await self.end_orphans(older_than_s=120.0)
            except PASSING as error:
                log.warning("no heartbeat to Prefect's server: %s", error)

    async def create_run(
        self, deployment_id: UUID, *, name: str, parameters: dict[str, Any], idempotency_key: str
    ) -> FlowRun:
        """Create a run that only this worker will run. Raise httpx.HTTPError, PrefectException."""
        return await self.client.create_flow_run_from_deployment(
            deployment_id, name=name, parameters=parameters, idempotency_key=idempotency_key, state=Pending(),
            labels={WORKER_LABEL: self.name},
        )  # fmt: skip

    async def end_orphans(self, older_than_s: float = 0.0) -> int:
        """Mark runs that count as under way but are not, as crashed, so that Prefect shows the truth; return how many.

        They bear this worker's name: left by a predecessor that died, or ended while Prefect's server was away.
        """
        before = now() - timedelta(seconds=older_than_s)
        found = await self.client.read_flow_runs(
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[self._work_pool_name])),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNDER_WAY))),
        )
        mine = [
            run for run in found
            if run.labels.get(WORKER_LABEL) == self.name and run.id not in self.runs
            and (run.created is None or run.created < before)
        ]  # fmt: skip
        for run in mine:
            state: State[Any] = Crashed(message="its worker died, or could not tell how it ended")
            await self.client.set_flow_run_state(run.id, state, force=True)
        return len(mine)

    async def stop_runs(self, grace_s: float) -> None:
        """Give running flows the grace to end, then cancel them (they end as Crashed; the ledger goes on later)."""
        if self.runs:
            await asyncio.wait(list(self.runs.values()), timeout=grace_s)
        left = list(self.runs.values())
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=3.0)

    async def _execute(self, flow_run: FlowRun) -> None:
        try:
            flow = await self._flow(flow_run)
            state = await run_flow(flow, flow_run)
            if not state.is_final():
                await self._end_cancelled(flow_run.id)
        except Abort as error:
            log.info("flow run %s was not begun or not ended: %s", flow_run.name, error)
            await self._end_cancelled(flow_run.id)
        except (Exception, asyncio.CancelledError) as error:
            log.warning("flow run %s broke off: %r", flow_run.name, error)
            await self._report_crash(flow_run, error)

    async def _flow(self, flow_run: FlowRun) -> Flow[..., Any]:
        known = self.flows.get(flow_run.deployment_id) if flow_run.deployment_id else None
        return known or adapted(await load_flow_from_flow_run(flow_run, ignore_storage=True))

    async def _end_cancelled(self, flow_run_id: UUID) -> None:
        """A run that somebody cancelled stays Cancelling for Prefect until it is told that the run is over."""
        with contextlib.suppress(httpx.HTTPError, PrefectException):
            found = await self.client.read_flow_run(flow_run_id)
            if found.state is not None and found.state.is_cancelling():
                await self.client.set_flow_run_state(flow_run_id, Cancelled(), force=True)

    async def _report_crash(self, flow_run: FlowRun, error: BaseException) -> None:
        with contextlib.suppress(httpx.HTTPError, PrefectException, TimeoutError):
            async with asyncio.timeout(2.0):
                found = await self.client.read_flow_run(flow_run.id)
                if found.state is None or not found.state.is_final():
                    state: State[Any] = Crashed(message=f"the worker broke off: {error!r}"[:500])
                    await self.client.set_flow_run_state(flow_run.id, state, force=True)
