"""What takes back a deployment's steps; each is safe when there is nothing to take back."""

from __future__ import annotations

from control.instances import Deployable
from core.errors import HostFault
from core.ids import on_host
from core.states import PowerState
from drivers.hosts import Host
from tasks.copies import keeper_of
from tasks.runtime import Runtime


async def connected(rt: Runtime, view: Deployable) -> Host:
    """Return the drivers of the host that an instance is placed on."""
    if view.host is None:
        raise HostFault("the instance is on no host", f"instance/{view.name}")
    return await rt.host(view.host)


async def undo_start(rt: Runtime, view: Deployable, *, grace_s: float = 0) -> bool:
    """Stop an instance if it is there and not stopped."""
    hypervisor = (await connected(rt, view)).hypervisor
    seen = await hypervisor.observe(on_host(view.id))
    if seen.power in (PowerState.ABSENT, PowerState.STOPPED):
        return False
    return await hypervisor.stop(on_host(view.id), grace_s=grace_s)


async def undo_define(rt: Runtime, view: Deployable) -> bool:
    """Take the definition away."""
    return await (await connected(rt, view)).hypervisor.undefine(on_host(view.id))


async def undo_volumes(rt: Runtime, view: Deployable) -> bool:
    """Take the disks away."""
    host = await connected(rt, view)
    if view.datastore is None or keeper_of(host, view.kind) is not None:
        return False
    return await host.storage(view.datastore.path).delete_volumes(view.id)


UNDO = {"stop": undo_start, "undefine": undo_define, "delete-volumes": undo_volumes}  # by a step's compensation
