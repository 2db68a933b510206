"""Asks for what was scheduled, when its time has come; what is refused then is written down. Ends reservations."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from control import access, requests, reservations, schedules, sql
from control.schedules import Due
from control.store import Store
from core.errors import RackflowError

log = logging.getLogger("rackflow.timetable")
EVERY_S = 5.0


async def run(store: Store, wake: Callable[[], None]) -> None:
    """Look for what is due until cancelled."""
    while True:
        try:
            if await ask(store) or await expire(store):
                wake()
        except RackflowError as error:
            log.warning("what is scheduled could not be looked at: %s", error)
        await asyncio.sleep(EVERY_S)


async def ask(store: Store) -> int:
    """Ask for all that is due; return how many requests were made, or refused."""
    found = await store.read(lambda c: schedules.due(c, sql.db_now(c)))
    for one in found:
        result = await _ask(store, one)
        await store.write(lambda c, one=one, said=result: schedules.ran(c, one.id, said))  # type: ignore[misc]
    return len(found)


async def expire(store: Store) -> int:
    """Give back reservations that are over; return how many."""
    if not await store.read(lambda c: reservations.over(c, sql.db_now(c))):
        return 0
    return await store.write(lambda c: reservations.expire(c, sql.db_now(c)))


async def _ask(store: Store, one: Due) -> dict[str, Any]:
    """Ask once, however often it is tried: the key is made of the schedule and its time."""

    def submit(c: Any) -> dict[str, Any]:
        who = access.find(c, one.asked_by)
        body = {"instances": [one.instance_id], **one.parameters}
        accepted = requests.submit(c, who, one.verb, body, source="schedule", idempotency_key=one.key)
        return {"operations": [op.id for op in accepted.operations]}

    try:
        return await store.write(submit)
    except RackflowError as error:
        log.info("schedule %s: %s of %s was refused: %s", one.id, one.verb, one.instance_id, error)
        return {"error": error.to_dict()}
