"""Switch off hosts that nobody needs, and on again."""

from __future__ import annotations

from typing import Literal

from prefect import flow

from core.states import Verb
from tasks.forms import names
from tasks.host_power import change_power
from tasks.ledger import enter
from tasks.settle import settle


@flow(name="host_power", flow_run_name="host_power")
async def host_power(
    host: str = "",
    do: Literal["sleep", "wake"] = "wake",
    operations: list[str] = [],  # noqa: B006 - a form's default
) -> None:
    """Put hosts that hold nothing to sleep, or wake them.

    Args:
        host: name; several: separated by commas
        do: sleep or wake
        operations: leave empty; filled by rackflow's dispatcher
    """
    batch = await enter(Verb(do), {"hosts": names(host)}, operations)
    try:
        await change_power(batch)
    finally:
        await settle(batch)
