"""Clusters that run out get spare machines, where they may: looked at after a look at the hosts, one at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from control import access, requests, spares
from core.clock import now
from core.errors import RackflowError
from core.states import Verb
from tasks.runtime import Runtime, runtime
from tasks.watch import RECONCILER

log = logging.getLogger("rackflow.spares")
EVERY_S = 600.0  # what is forecast changes by the day


async def keep_spares() -> list[str]:
    """Commission what is proposed for clusters that may do so by themselves; return the names of the machines.

    Only by a forecast that has beaten its naive baseline so far. No task of Prefect's: most clouds have nothing to do.
    """
    rt = runtime()
    if time.monotonic() - rt.spared < EVERY_S or not await rt.store.read(spares.automatic):
        return []
    rt.spared = time.monotonic()
    try:
        begun = await _commission(rt)
    except RackflowError as error:  # the next look tries again
        log.warning("spare machines could not be looked at: %s", error)
        return []
    if begun:
        rt.wake()
    return begun


async def _commission(rt: Runtime) -> list[str]:
    if rt.analytics is None:
        return []
    outlook = await asyncio.to_thread(rt.analytics.outlook)

    def begin(c: Any) -> list[str]:
        may = spares.automatic(c) - spares.under_way(c)
        wanted = [
            one for one in spares.propose(outlook, spares.ready(c), now())
            if one.cluster in may and one.proven and one.machine is not None
        ]  # fmt: skip
        names = [str(one.machine) for one in wanted]
        if names:
            who = access.named(c, RECONCILER, role=access.ADMIN)
            requests.submit(c, who, Verb.ENROLL_MACHINE, {"names": names, "commission": True}, source="spares")
        return names

    return await rt.store.write(begin)
