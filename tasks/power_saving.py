"""Clusters that switch idle hosts off, and on before they are needed: looked at after a look at the hosts.

Also the other way: what waits for room wakes hosts, whatever the policy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any

from blueprints.power import PowerSpec
from control import access, clusters, power_policy, requests, sleeping
from core.clock import now
from core.errors import RackflowError
from core.states import Verb
from tasks.runtime import Runtime, runtime
from tasks.watch import RECONCILER

log = logging.getLogger("rackflow.power")
SOURCE = "power"


async def keep_power() -> dict[str, list[str]]:
    """Put to sleep and wake what the policies of clusters want; return the names of the hosts by verb.

    No task of Prefect's: most clouds have nothing to do.
    """
    rt = runtime()
    done: dict[str, list[str]] = {Verb.SLEEP: [], Verb.WAKE: []}
    savers = await rt.store.read(clusters.power_savers)
    if not savers:
        return done
    outlook = await _outlook(rt)
    for cluster, policy in savers:

        def begin(c: Any, cluster: str = cluster, policy: PowerSpec = policy) -> dict[Verb, list[str]]:
            change, news = power_policy.decide(c, cluster, policy, outlook, now())
            sleeping.note_idle(c, news)
            calm = not power_policy.waiting(c)
            wanted = {Verb.WAKE: change.wake, Verb.SLEEP: change.sleep if calm else ()}
            return {verb: ask(c, verb, names, change.reason) for verb, names in wanted.items()}

        try:
            for verb, names in (await rt.store.write(begin)).items():
                done[verb] += names
        except RackflowError as error:  # somebody changes one of them: the next look tries again
            log.warning("the power of cluster %s could not be seen to: %s", cluster, error)
    if any(done.values()):
        rt.wake()
    return done


def ask(c: Any, verb: Verb, names: Collection[str], reason: str) -> list[str]:
    """Ask for hosts to be put to sleep or woken, each by itself; return those that were not refused."""
    asked: list[str] = []
    for name in names:
        try:
            who = access.named(c, RECONCILER, role=access.ADMIN)
            requests.submit(c, who, verb, {"hosts": [name], "reason": reason}, source=SOURCE)
        except RackflowError as error:  # refused before anything was written
            log.info("%s of host %s was refused: %s", verb, name, error)
        else:
            asked.append(name)
    return asked


async def _outlook(rt: Runtime) -> list[dict[str, Any]]:
    """Return what the history forecasts; nothing where it does not answer: what is reserved counts all the same."""
    if rt.analytics is None:
        return []
    try:
        return await asyncio.to_thread(rt.analytics.outlook)
    except RackflowError as error:
        log.warning("no forecast: %s", error)
        return []
