"""Empty hosts, cut off dead ones, and take over what runs on a host already."""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow

from core.states import Verb
from tasks.adopt import adopt_instances
from tasks.evacuate import evacuate_hosts
from tasks.fencing import fence_hosts
from tasks.forms import names
from tasks.ledger import enter
from tasks.settle import settle


@flow(name="evacuate", flow_run_name="evacuate")
async def evacuate(
    host: str = "",
    parallel: int = 2,
    live: Literal["where possible", "yes", "no"] = "where possible",
    then: Literal["draining", "maintenance", "disabled"] = "draining",
    operations: list[str] = [],  # noqa: B006 - a form's default
) -> None:
    """Move away what a host holds; nothing more is placed there.

    Args:
        host: name; several: separated by commas
        parallel: instances that leave it at a time
        live: without stopping what runs
        then: its state once it is empty
        operations: leave empty; filled by rackflow's dispatcher
    """
    body: dict[str, Any] = {"hosts": names(host), "parallel": parallel}
    if live != "where possible":
        body["live"] = live == "yes"
    if then != "draining":
        body["then"] = then
    batch = await enter(Verb.EVACUATE, body, operations)
    try:
        await evacuate_hosts(batch)
    finally:
        await settle(batch)


@flow(name="fence", flow_run_name="fence")
async def fence(host: str = "", confirmed: bool = False, operations: list[str] = []) -> None:  # noqa: B006
    """Cut the power of a host that does not answer; what it held starts elsewhere where its disks are seen.

    Args:
        host: name; several: separated by commas
        confirmed: you have seen yourself that it is off; its BMC is not asked
        operations: leave empty; filled by rackflow's dispatcher
    """
    batch = await enter(Verb.FENCE, {"hosts": names(host), "confirmed": confirmed}, operations)
    try:
        await fence_hosts(batch)
    finally:
        await settle(batch)


@flow(name="adopt", flow_run_name="adopt")
async def adopt(host: str = "", instances: str = "", operations: list[str] = []) -> None:  # noqa: B006
    """Let instances that run on a host already become ours; nothing of them is touched.

    Args:
        host: name
        instances: their names on the host, separated by commas
        operations: leave empty; filled by rackflow's dispatcher
    """
    batch = await enter(Verb.ADOPT, {"hosts": names(host), "instances": names(instances)}, operations)
    try:
        await adopt_instances(batch)
    finally:
        await settle(batch)
