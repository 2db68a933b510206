"""Prefect's flow engine without what would block the event loop that all runs of a worker share (Prefect 3.8.8).

Prefect's own `run_flow_async` makes, for each run of a deployment, a thread with a websocket of its own that watches
for "suspend", and waits for it inside the event loop, without a time-out: 80 ms at the begin and 200 ms at the end of
every run, and for as long as its server does not answer (prefect/_flow_run_suspension.py). And unless the flow says
where results go, it asks the server with a blocking client (prefect/results.py). Our runs cannot be suspended; their
results stay in memory.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from prefect import Flow
from prefect._flow_run_suspension import FlowRunSuspensionRequest, register_flow_run_suspension_request
from prefect.client.schemas.objects import FlowRun, State
from prefect.filesystems import LocalFileSystem
from prefect.flow_engine import AsyncFlowRunEngine
from prefect.settings import get_current_settings


class InProcessEngine(AsyncFlowRunEngine[Any, Any]):
    """One run of one flow."""

    _beats = 0

    def _emit_flow_run_heartbeat(self, *event: Any) -> None:
        """Send heartbeats, but not the first, at the begin.

        A short run's heartbeat can arrive after its end, and then the automation for dead runs waits for more of them.
        """
        if self._beats:
            super()._emit_flow_run_heartbeat(*event)
        self._beats += 1

    @contextmanager
    def setup_flow_run_suspension_request(self) -> Generator[FlowRunSuspensionRequest, None, None]:
        """Register the request object that Prefect's contexts expect, and watch for nothing."""
        assert self.flow_run is not None
        request = self._get_flow_run_suspension_request()
        with register_flow_run_suspension_request(self.flow_run.id, request):
            yield request


async def run_flow(flow: Flow[..., Any], flow_run: FlowRun) -> State[Any]:
    """Run a flow to its end, as Prefect's run_flow_async does, and return the run's last state. Raise Abort, Pause."""
    engine = InProcessEngine(flow=flow, parameters=flow_run.parameters, flow_run=flow_run)
    async with engine.start():
        while engine.is_running():
            async with engine.run_context():
                _: Any = await engine.call_flow_fn()
    return engine.state


def adapted(flow: Flow[..., Any]) -> Flow[..., Any]:
    """Return a copy of a flow that keeps results in memory and whose runs keep the names given at their creation."""
    copy = flow.with_options(persist_result=False)
    copy.result_storage = LocalFileSystem(basepath=str(get_current_settings().results.local_storage_path))
    copy.flow_run_name = None  # naming a run costs another request
    return copy
