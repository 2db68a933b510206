"""Compare the record with the world on every host; repair or report."""

from __future__ import annotations

from prefect import flow

from core.states import Verb
from tasks.balance import keep_balanced
from tasks.forms import names
from tasks.ledger import enter
from tasks.machine_health import keep_watching
from tasks.power_saving import keep_power
from tasks.reconcile import reconcile_hosts
from tasks.settle import settle
from tasks.spares import keep_spares


@flow(name="reconcile", flow_run_name="reconcile")
async def reconcile(hosts: str = "", operations: list[str] = []) -> None:  # noqa: B006 - a form's default
    """Look at every host: what runs there, what it uses, what differs from the record.

    Args:
        hosts: names, separated by commas; empty: all
        operations: leave empty; filled by rackflow's dispatcher
    """
    batch = await enter(Verb.RECONCILE, {"hosts": names(hosts)}, operations)
    try:
        await reconcile_hosts(batch)
    finally:
        await settle(batch)
    await keep_balanced()
    await keep_watching()
    await keep_spares()
    await keep_power()
