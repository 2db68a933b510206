"""Move instances between hosts as a plan says."""

from __future__ import annotations

from prefect import flow

from core.states import Verb
from tasks.forms import names
from tasks.ledger import enter
from tasks.rebalance import apply_plans
from tasks.settle import settle


@flow(name="apply_plan", flow_run_name="apply plan")
async def apply_plan(
    plan: str = "", parallel: int = 4, per_host: int = 2, operations: list[str] = []  # noqa: B006 - a form's default
) -> None:
    """Carry out a plan; it is refused when the world has moved since it was made.

    Args:
        plan: its id
        parallel: moves at a time
        per_host: of these that a host takes part in
        operations: leave empty; filled by rackflow's dispatcher
    """
    batch = await enter(
        Verb.APPLY_PLAN, {"plans": names(plan), "parallel": parallel, "per_host": per_host}, operations
    )
    try:
        await apply_plans(batch)
    finally:
        await settle(batch)
