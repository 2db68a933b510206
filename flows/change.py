"""Change instances that exist."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from prefect import flow

from core.states import Verb
from tasks.forms import change_body, names
from tasks.ledger import by_host, enter
from tasks.lifecycle import change as change_on
from tasks.lifecycle import groups
from tasks.place import place, unplaced
from tasks.settle import settle

Word = Literal[
    "start", "shutdown", "poweroff", "reboot", "suspend", "resume", "stop", "undeploy", "rename", "resize",
    "attach-disk", "detach-disk", "grow-disk", "attach-nic", "detach-nic", "snapshot", "revert", "drop-snapshot",
    "save-image", "backup", "revert-backup", "delete",
]  # fmt: skip


@flow(name="start", flow_run_name="start")
async def start(instances: str = "", operations: list[str] = []) -> None:  # noqa: B006 - a form's default
    """Start instances that are off, paused, stopped or undeployed.

    Args:
        instances: names, separated by commas
        operations: leave empty; filled by rackflow's dispatcher
    """
    await run(Verb.START, {"instances": names(instances)}, operations)


@flow(name="shutdown", flow_run_name="shutdown")
async def shutdown(instances: str = "", grace_s: float = 30.0, operations: list[str] = []) -> None:  # noqa: B006
    """Shut running instances down: the guest is asked, and after the grace time the power is cut.

    Args:
        instances: names, separated by commas
        grace_s: seconds that a guest has to shut down
        operations: leave empty; filled by rackflow's dispatcher
    """
    await run(Verb.SHUTDOWN, {"instances": names(instances), "grace_s": grace_s}, operations)


@flow(name="delete", flow_run_name="delete")
async def delete(instances: str = "", grace_s: float = 0.0, operations: list[str] = []) -> None:  # noqa: B006
    """Delete instances with their disks.

    Args:
        instances: names, separated by commas
        grace_s: seconds that a guest has to shut down; 0 cuts the power at once
        operations: leave empty; filled by rackflow's dispatcher
    """
    await run(Verb.DELETE, {"instances": names(instances), "grace_s": grace_s}, operations)


@flow(name="change", flow_run_name="change")
async def change(
    verb: Word = "reboot",
    instances: str = "",
    parameters: str = "",
    operations: list[str] = [],  # noqa: B006
) -> None:
    """Change instances by any verb.

    Args:
        verb: what is to be done
        instances: names, separated by commas
        parameters: of the verb, as name=value, separated by spaces: cpu=2 memory=1GiB
        operations: leave empty; filled by rackflow's dispatcher
    """
    await run(Verb(verb), change_body(verb, instances, parameters), operations)


@flow(name="migrate", flow_run_name="migrate")
async def migrate(
    instances: str = "",
    host: str = "",
    live: Literal["where possible", "yes", "no"] = "where possible",
    operations: list[str] = [],  # noqa: B006
) -> None:
    """Move instances to another host.

    Args:
        instances: names, separated by commas
        host: to this one; empty: the scheduler chooses
        live: without stopping them
        operations: leave empty; filled by rackflow's dispatcher
    """
    body: dict[str, Any] = {"instances": names(instances)}
    if host:
        body["host"] = host
    if live != "where possible":
        body["live"] = live == "yes"
    await run(Verb.MIGRATE, body, operations)


async def run(verb: Verb, form: dict[str, Any], operations: list[str]) -> None:
    """Carry a batch through its steps, on every host that holds an instance of it."""
    batch = await enter(verb, form, operations)
    try:
        waiting = await unplaced(batch)
        placed = await place(waiting, len(waiting)) if waiting else {}  # what fits nowhere goes no further
        there = await by_host([one for one in batch if one not in waiting])
        hosts = {where: [*placed.get(where, ()), *there.get(where, ())] for where in {**placed, **there}}
        await asyncio.gather(*(change_on(where, part) for where, part in groups(hosts).items()), return_exceptions=True)
    finally:
        await settle(batch)
