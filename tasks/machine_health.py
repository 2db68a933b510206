"""Looks at BMCs now and then: sensors and event logs go to the history. A BMC that is silent is part of it."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from control import machines, outbox
from control.machines import MachineRecord
from core.clock import rfc3339
from core.errors import RackflowError
from drivers.baremetal.base import BareMetal
from drivers.baremetal.facets import BmcEvent, HasSensors, KeepsEvents
from tasks.machine_power import bmc_of
from tasks.runtime import Runtime, runtime

log = logging.getLogger("rackflow.machines")
KIND = "machine-health"  # as in analytics/machines.py
EVERY_S = 600.0  # a BMC takes seconds for it, and heat changes slowly
LOOK_S = 30.0  # for one BMC
AT_ONCE = 32  # BMCs; a round has one for each so many of those that are due
ENTRIES = 50  # of a log, the newest


async def keep_watching() -> int:
    """Look at the BMCs that were not looked at for a while; return how many. No task of Prefect's: it is every minute.

    Only as many as fit into the round: others wait for the next, the longest ago first.
    """
    rt = runtime()
    records = await rt.store.read(machines.watched)
    at = time.monotonic()
    due = [one for one in records if at - rt.watched.get(one.id, -EVERY_S) >= EVERY_S]
    due.sort(key=lambda one: rt.watched.get(one.id, 0.0))
    bound = asyncio.Semaphore(AT_ONCE)

    async def look(one: MachineRecord) -> tuple[str, str, dict[str, Any]]:
        async with bound:
            rt.watched[one.id] = time.monotonic()
            return (KIND, f"machine/{one.id}", await seen_of(rt, one))

    looks = await asyncio.gather(*(look(one) for one in due[: 4 * AT_ONCE]))
    if looks:
        await rt.store.write(lambda c: outbox.emit_all(c, looks))
    return len(looks)


async def seen_of(rt: Runtime, record: MachineRecord) -> dict[str, Any]:
    """Return what a BMC tells of itself: power, sensors and those entries of its log that were not seen yet."""
    seen: dict[str, Any] = {"machine": record.name, "power": None, "sensors": [], "events": [], "error": None}
    bmc: BareMetal | None = None
    try:
        async with asyncio.timeout(LOOK_S):
            bmc = await bmc_of(rt, record)
            seen["power"] = (await bmc.power()).value
            if isinstance(bmc, HasSensors):
                seen["sensors"] = [asdict(one) for one in await bmc.sensors()]
            if isinstance(bmc, KeepsEvents):
                seen["events"] = _new(rt, record.id, await bmc.events(limit=ENTRIES))
    except (RackflowError, TimeoutError) as error:
        said = error.to_dict() if isinstance(error, RackflowError) else {"code": "unreachable", "message": "too slow"}
        if seen["power"] is None:
            seen["error"] = said
        else:  # it answers, and lacks something, or is too slow for all of it
            log.info("the BMC of %s did not tell everything: %s", record.name, said["message"])
    finally:
        if bmc is not None:
            with suppress(RackflowError):
                await bmc.close()
    return seen


def _new(rt: Runtime, machine_id: str, events: tuple[BmcEvent, ...]) -> list[dict[str, Any]]:
    known = rt.logged.get(machine_id, set())
    keys = {_key(one): one for one in events}
    rt.logged[machine_id] = set(keys)
    return [
        {"id": one.id, "at": rfc3339(one.at), "severity": one.severity, "message": one.message}
        for key, one in keys.items() if key not in known
    ]  # fmt: skip


def _key(one: BmcEvent) -> tuple[str, str]:
    return one.id, one.message
