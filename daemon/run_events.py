"""Listens to Prefect's event stream: a run that waits is taken at once, a run that is cancelled is told so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter

log = logging.getLogger("rackflow.worker")

_RUN = "prefect.flow-run."
WAITS, CANCELS = f"{_RUN}Scheduled", f"{_RUN}Cancelling"
_AGAIN_S = 3.0


async def listen(on_waiting: Callable[[], None], on_cancelling: Callable[[UUID], Any]) -> None:
    """Call back for every such event, for ever; a lost connection is made again. The poll covers what is missed."""
    wanted = EventFilter(event=EventNameFilter(name=[WAITS, CANCELS]))
    while True:
        try:
            async with get_events_subscriber(filter=wanted, reconnect_on_clean_close=True) as events:
                async for event in events:
                    if event.event == WAITS:
                        on_waiting()
                    elif found := _run_id(event.resource.id):
                        on_cancelling(found)
        except Exception as error:  # whatever the stream's libraries raise, it is only a faster way to know
            log.info("Prefect's event stream broke off (%s); listening again in %.0f s", error, _AGAIN_S)
        await asyncio.sleep(_AGAIN_S)


def _run_id(resource: str) -> UUID | None:
    try:
        return UUID(resource.removeprefix(_RUN))
    except ValueError:
        return None
