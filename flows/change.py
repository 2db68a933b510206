"""Change instances that exist: start, stop, delete."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from prefect import flow

from core.states import Verb
from tasks.forms import names
from tasks.instances import delete as delete_stage
from tasks.instances import shut_down, start_stopped
from tasks.ledger import by_host, enter
from tasks.settle import settle

Stage = Callable[[str, Sequence[str]], Coroutine[Any, Any, list[str]]]


@flow(name="start", flow_run_name="start")
async def start(instances: str = "", operations: list[str] = []) -> None:  # noqa: B006 - a form's default
    """Start stopped instances.

    Args:
        instances: names, separated by commas
        operations: leave empty; filled by rackflow's dispatcher
    """
    await run(Verb.START, {"instances": names(instances)}, operations, start_stopped)


@flow(name="stop", flow_run_name="stop")
async def stop(instances: str = "", grace_s: float = 30.0, operations: list[str] = []) -> None:  # noqa: B006
    """Stop running instances: the guest is asked, and after the grace time the power is cut.

    Args:
        instances: names, separated by commas
        grace_s: seconds that a guest has to shut down
        operations: leave empty; filled by rackflow's dispatcher
    """
    await run(Verb.SHUTDOWN, {"instances": names(instances), "grace_s": grace_s}, operations, shut_down)


@flow(name="delete", flow_run_name="delete")
async def delete(instances: str = "", grace_s: float = 0.0, operations: list[str] = []) -> None:  # noqa: B006
    """Delete instances with their disks.

    Args:
        instances: names, separated by commas
        grace_s: seconds that a guest has to shut down; 0 cuts the power at once
        operations: leave empty; filled by rackflow's dispatcher
    """
    await run(Verb.DELETE, {"instances": names(instances), "grace_s": grace_s}, operations, delete_stage)


async def run(verb: Verb, form: dict[str, Any], operations: list[str], stage: Stage) -> None:
    """Run one stage on every host that holds an instance of the batch."""
    batch = await enter(verb, form, operations)
    try:
        hosts = await by_host(batch)
        await asyncio.gather(*(stage(host, ids) for host, ids in hosts.items()), return_exceptions=True)
    finally:
        await settle(batch)
