"""Registers the flows with Prefect: one deployment each, in our work pool, by dotted entrypoint."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.automations import Automation
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.types.entrypoint import EntrypointType

from daemon.flow_table import FlowEntry

TAG = "rackflow"
_BEAT = "prefect.flow-run.heartbeat"
_ENDS = [f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")]


def load_flow(entry: FlowEntry) -> Flow[..., Any]:
    """Import a flow."""
    module, _, name = entry.entrypoint.rpartition(".")
    found: Flow[..., Any] = getattr(importlib.import_module(module), name)
    return found


async def register(entries: Sequence[FlowEntry], work_pool: str, every_s: int) -> dict[str, UUID]:
    """Create or update the deployments; return flow name -> deployment id. every_s: of the scheduled ones."""
    ids = await asyncio.gather(*(_apply(entry, work_pool, every_s) for entry in entries))
    return {entry.name: found for entry, found in zip(entries, ids, strict=True)}


async def _apply(entry: FlowEntry, work_pool: str, every_s: int) -> UUID:
    flow = load_flow(entry)
    deployment = await flow.ato_deployment(
        name=entry.name, work_pool_name=work_pool, tags=[TAG], entrypoint_type=EntrypointType.MODULE_PATH,
        interval=timedelta(seconds=every_s) if entry.scheduled else None,
        description=(flow.description or "").strip().split("\n\n", 1)[0],
    )  # fmt: skip
    return await deployment.aapply()


def zombies() -> Automation:
    """Return the automation that marks runs without a heartbeat as crashed (seen: 63 s after a kill -9).

    Only Prefect's display depends on it: the ledger's claims decide who goes on with the work.
    """
    return Automation(
        name="rackflow: runs whose worker died",
        trigger=EventTrigger(
            posture=Posture.Proactive, threshold=1, within=timedelta(seconds=90), after={_BEAT},
            expect={_BEAT, *_ENDS}, for_each={"prefect.resource.id"},
            match={"prefect.resource.id": "prefect.flow-run.*"},
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message="its worker sends no heartbeat any more")],
    )  # fmt: skip
