"""Steps about disks and definitions on the instance's own host, and about its files at the front-end."""

from __future__ import annotations

from dataclasses import replace

from control import growing
from control.instances import Deployable
from core.errors import Drift
from core.states import PowerState, Verb
from drivers.carrier import carry
from drivers.hosts import Host
from drivers.hypervisor.base import DiskAttachment
from drivers.hypervisor.powers import Adopts, Carries, Reconfigures
from tasks import specs
from tasks.copies import ensure_on_host, keeper_of
from tasks.ledger import Seen
from tasks.work import Work

_UNPARKING = (Verb.RESTORE, Verb.REDEPLOY)

async def image(w: Work) -> Seen:
    """Bring its image to its host."""
    view = w.view
    if view.image is None:
        return Seen(False)
    assert view.host is not None
    assert view.datastore is not None
    changed = await ensure_on_host(
        w.rt, await w.host(), view.host, view.datastore.id, view.datastore.path, view.image
    )
    return Seen(changed, {"image": view.image.name, "sha256": view.image.sha256})


async def make_disks(w: Work, host: Host, view: Deployable, *, other: bool = False) -> list[DiskAttachment]:
    """Ensure its disks: files in its datastore, or its hypervisor's own pool; adopted ones keep theirs."""
    if view.host_name:
        driver: Adopts = w.power(host, Adopts, "change")
        return list((await driver.describe(view.host_name)).disks)
    if keeper_of(host, view.kind) is not None:
        return specs.pool_disks(view)
    storage = w.storage(host, other=other)
    disks = [await storage.ensure_volume(volume) for volume in specs.volumes(view)]
    nics = [await host.network.ensure_nic(specs.network(x), specs.nic(x)) for x in view.leases]
    return [*disks, await storage.ensure_seed(specs.seed(view, nics))]


async def volumes(w: Work) -> Seen:
    """Make its disks."""
    disks = await make_disks(w, await w.host(), w.view)
    return Seen(True, {"disks": [disk.source for disk in disks]})


async def define(w: Work) -> Seen:
    """Define it from its disks."""
    return Seen(await define_on(w, await w.host()), {"name": w.name})


async def define_on(w: Work, host: Host, view: Deployable | None = None, *, other: bool = False) -> bool:
    """Define an instance on a host as its view says; its disks are there, or are made by its first deployment only."""
    wanted = view or w.view
    if w.op.verb != "deploy":
        await require_disks(w, host, other=other)
    disks = await make_disks(w, host, wanted, other=other)
    nics = [await host.network.ensure_nic(specs.network(x), specs.nic(x)) for x in wanted.leases]
    return await host.hypervisor.define(specs.instance(wanted, disks, nics, other=other))


async def require_disks(w: Work, host: Host, *, other: bool = False) -> None:
    """Raise Drift when its disks are gone: new ones in their place would pass for them."""
    if w.view.host_name or keeper_of(host, w.view.kind) is not None:
        return
    if w.view.id not in await w.storage(host, other=other).volumes():
        raise Drift(
            f"the disks of {w.view.name} are not on {host.name}", f"instance/{w.view.name}", {"host": host.name},
            "restore a backup, or delete it",
        )  # fmt: skip


async def apply(w: Work) -> Seen:
    """Bring it to what it is to be: at once what runs, and for its next start."""
    return Seen(await bring(w, growing.wanted(w.op, w.view)))


async def apply_before(w: Work) -> Seen:
    """Bring it back to what the record says."""
    return Seen(await bring(w, growing.with_spec(w.view, w.view.spec)))


async def bring(w: Work, wanted: Deployable) -> bool:
    """Make it on its host what a view says: at once what runs, and for its next start; return whether it was not."""
    if w.view.host is None:  # its files are parked: it is made anew from the record
        return False
    host = await w.host()
    await require_disks(w, host)
    disks = await make_disks(w, host, wanted)
    nics = [await host.network.ensure_nic(specs.network(x), specs.nic(x)) for x in wanted.leases]
    spec = specs.instance(wanted, disks, nics)
    changed = False
    if (await host.hypervisor.observe(w.name)).power in (PowerState.RUNNING, PowerState.PAUSED):
        changed = await w.power(host, Reconfigures, "change a running").reconfigure(spec)
    return await host.hypervisor.define(spec) or changed


async def undefine(w: Work) -> Seen:
    """Take its definition away. The disks of an adopted one are left, and with them what cannot be without them."""
    if w.view.host is None:
        return Seen(False)
    if w.view.host_name:
        return await _let_go(w, await w.host())
    return Seen(await (await w.host()).hypervisor.undefine(w.name))


async def _let_go(w: Work, host: Host) -> Seen:
    seen = await host.hypervisor.observe(w.name)
    if seen.power is PowerState.ABSENT:
        return Seen(False)
    if keeper_of(host, w.view.kind) is None:
        return Seen(await host.hypervisor.undefine(w.name), {"disks left": list(seen.disks)})
    driver: Adopts = w.power(host, Adopts, "let go of")
    return Seen(await driver.disown(w.name), {"left, not ours any more": w.name})


async def delete_volumes(w: Work) -> Seen:
    """Take its disks away; of a hypervisor that holds them itself, what was unparked: that is the whole instance."""
    if w.view.host is None or w.view.datastore is None:
        return Seen(False)
    host = await w.host()
    if w.in_pool(host):
        return Seen(w.op.verb in _UNPARKING and await w.carrier(host).drop(w.view.id))
    return Seen(await w.storage(host).delete_volumes(w.view.id))


async def clear(w: Work) -> Seen:
    """Take it away from its host; all of it is at the front-end, verified."""
    undefined = await undefine(w)
    deleted = await delete_volumes(w)
    return Seen(undefined.changed or deleted.changed)


async def add_volume(w: Work) -> Seen:
    """Make the new disk."""
    host, name = await w.host(), str(w.op.parameters["disk"]["name"])
    if w.in_pool(host):
        return Seen(False)  # the hypervisor makes it when the instance is defined with it
    (volume,) = [v for v in specs.volumes(growing.wanted(w.op, w.view)) if v.name == name]
    return Seen(True, {"disk": (await w.storage(host).ensure_volume(volume)).source})


async def drop_volume(w: Work) -> Seen:
    """Delete a disk that the instance does not have any more, or was not given after all."""
    disk = w.op.parameters["disk"]
    name = str(disk["name"] if isinstance(disk, dict) else disk)
    host = await w.host()
    if w.in_pool(host):
        return Seen(await w.power(host, Carries, "delete a disk of").delete_disk(w.name, name))
    return Seen(await w.storage(host).delete_volume(w.view.id, name))


async def grow_volume(w: Work) -> Seen:
    """Grow a disk that nothing uses; one in use is grown with its instance."""
    host = await w.host()
    if w.in_pool(host) or (await host.hypervisor.observe(w.name)).power is not PowerState.STOPPED:
        return Seen(False)
    name = str(w.op.parameters.get("disk", "root"))
    (volume,) = [v for v in specs.volumes(growing.wanted(w.op, w.view)) if v.name == name]
    return Seen(True, {"size_mib": (await w.storage(host).ensure_volume(volume)).size_mib})


# at the front-end


async def park(w: Work) -> Seen:
    """Copy its files to the front-end, each with its checksum."""
    return Seen(True, {"bytes": await carry(w.carrier(await w.host()), w.vault, w.view.id)})


async def unpark(w: Work) -> Seen:
    """Copy its files from the front-end to its host, each with its checksum. Raise Drift when they are not there."""
    if not await w.vault.parcels(w.view.id):
        raise Drift(
            f"the front-end has no files of {w.view.name}", f"instance/{w.view.name}",
            {"folder": str(w.rt.settings.paths.parked_dir / w.view.id)}, "restore a backup, or delete it",
        )  # fmt: skip
    host = await w.host()
    async with w.fitting(w.vault, host) as source:
        return Seen(True, {"bytes": await carry(source, w.carrier(host), w.view.id)})


async def drop_parked(w: Work) -> Seen:
    """Take its files away from the front-end: they are on a host."""
    return Seen(await w.vault.drop(w.view.id))


def has_host_address(view: Deployable) -> bool:
    """Say whether one of its addresses is good on its host only."""
    return any(lease.addressing == "host" for lease in view.leases)


def without_host_addresses(view: Deployable) -> Deployable:
    """Return a view whose NICs have no address where that is good on one host only."""
    leases = [replace(x, address=None) if x.addressing == "host" else x for x in view.leases]
    return replace(view, leases=leases)
