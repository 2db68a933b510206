"""Clusters that move instances by themselves: planned after a look at the hosts, carried out within their limits."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta
from typing import Any

from blueprints.plan import PlanSpec, RebalanceSpec
from control import access, clusters, plans, rebalancing, requests, sql
from core.errors import RackflowError
from core.states import Verb
from tasks.runtime import Runtime, runtime
from tasks.watch import RECONCILER

log = logging.getLogger("rackflow.balance")
EVERY_S = 600.0  # a plan takes a core for some tenths of a second; what was moved has to show in what is measured
HOUR = timedelta(hours=1)


async def keep_balanced() -> list[str]:
    """Plan and begin what clusters may do by themselves, one plan at a time; return the plans that were begun.

    Not a task of Prefect's: most clouds have nothing to do here, and a task run a minute is not for nothing.
    """
    rt = runtime()
    found: list[str] = []
    for cluster, limits in await rt.store.read(clusters.automatic):
        if time.monotonic() - rt.balanced.get(cluster, -EVERY_S) < EVERY_S:
            continue
        try:
            plan_id = await _balance(rt, cluster, limits)
        except RackflowError as error:  # the next look tries again
            log.warning("cluster %s could not be balanced: %s", cluster, error)
            continue
        found += [plan_id] if plan_id else []
    if found:
        rt.wake()
    return found


async def _balance(rt: Runtime, cluster: str, limits: RebalanceSpec) -> str | None:
    """Plan for one cluster, and have it carried out; None: nothing is worth it, or no move is left for this hour."""
    spec = PlanSpec(kind=limits.kind, cluster=cluster, threshold=limits.threshold)

    def room(c: Any) -> int:
        if plans.under_way(c) is not None:
            return 0
        since = sql.db_now(c) - HOUR
        return limits.max_moves_per_hour - plans.moves_since(c, cluster, since)

    most = await rt.store.read(room)
    if most <= 0:
        return None
    rt.balanced[cluster] = time.monotonic()
    world = await rt.store.read(lambda c: rebalancing.look(c, spec))
    features, policy = await rt.features(), rt.settings.placement_policy
    made = await asyncio.to_thread(rebalancing.made, spec, world, features, most=most, policy=policy)
    if not made["moves"]:
        return None

    def begin(c: Any) -> str:
        who = access.named(c, RECONCILER, role="admin")
        plan_id = plans.write(c, who, made)
        requests.submit(c, who, Verb.APPLY_PLAN, {"plans": [plan_id]}, source="balance")
        return plan_id

    return await rt.store.write(begin)
