"""Does a host that we configured still have what it was given? Looked at with its facts: after a boot, and daily."""

from __future__ import annotations

from control import configuring
from control.hosts import HostRecord
from core.errors import HostFault
from drivers import role, role_plan
from drivers.hosts import Host
from drivers.role import role_of
from tasks.runtime import Runtime


async def missing_on(rt: Runtime, record: HostRecord, host: Host) -> list[str] | None:
    """Return what it lacks, in words; None: it is not ours to say."""
    if record.driver not in role.PACKAGES or not await rt.store.read(lambda c: configuring.was_configured(c, record)):
        return None
    want = role_of(record.spec, record.driver)
    try:
        plan = role_plan.plan(await role.look(host.transport, want), want)
    except HostFault as error:
        return [str(error)]
    return [action.words for action in plan.actions] or ([] if plan.complete else [f"{want.kind} does not answer"])
