"""What a host's hypervisor tells of by itself, taken into the history with each look."""

from __future__ import annotations

from control import host_events
from control.hosts import HostRecord
from core.errors import RackflowError, Unreachable
from drivers.hosts import Host
from drivers.hypervisor.powers import TellsEvents
from tasks.runtime import Runtime


async def take_events(rt: Runtime, record: HostRecord, host: Host) -> int:
    """Write what happened on a host since the last look; return how many events. The first look only sets the mark."""
    if not isinstance(host.hypervisor, TellsEvents):
        return 0
    before = host_events.mark_of(record)
    try:
        events, mark = await host.hypervisor.events(before)
    except Unreachable:
        raise
    except RackflowError:  # e.g. a user who may not read events: a look is about more than that
        return 0
    if mark == before:
        return 0
    found = [
        (one.at, {"instance_id": one.instance_id or None, "event": one.kind, "by": one.by, "reason": one.text})
        for one in events
    ]
    await rt.store.write(lambda c: host_events.record(c, record, found, mark))
    return len(found)
