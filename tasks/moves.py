"""Steps of an instance that changes hosts. The last copy of nothing goes before the new one was verified."""

from __future__ import annotations

from typing import Any

from control import drift, moving, placing_asleep
from control.operations import steps_of
from core.errors import Conflict, HostFault, NoCapacityNow, Unreachable
from core.states import PowerState, Verb
from drivers.carrier import carry as carry_files
from drivers.hypervisor.powers import MigratesLive, Move
from tasks import specs
from tasks.copies import ensure_on_host
from tasks.disks import define_on, make_disks, without_host_addresses
from tasks.ledger import Seen
from tasks.power_saving import ask
from tasks.work import Work

TRANSFER_S = 3600.0
ON = (PowerState.RUNNING, PowerState.PAUSED)


async def reserve(w: Work) -> Seen:
    """Choose the host that it goes to, and reserve there what it needs; wake one where no other has that."""
    features = await w.rt.features()
    try:
        target = await w.rt.store.write(lambda c: moving.reserve(c, w.op, features, w.rt.settings.placement_policy))
    except NoCapacityNow as error:
        if sleeper := placing_asleep.woken_by(error):
            why = f"{w.op.subject_name} waits for room"
            await w.rt.store.write(lambda c: ask(c, Verb.WAKE, [sleeper], why))
            w.rt.wake()
        raise
    return Seen(True, {"from": w.view.host.name if w.view.host else None, "to": target})


async def unreserve(w: Work) -> Seen:
    """Give back what is reserved on the other host; after a fail-over what lies there is owed to it."""

    def write(c: Any) -> None:
        if w.op.verb == "failover" and w.view.other is not None:
            owe(c, w, w.view.other.name, {"reason": "it was started elsewhere"})
        moving.unreserve(c, w.op)

    await w.rt.store.write(write)
    return Seen(True)


def owe(c: Any, w: Work, host: str, seen: dict[str, Any]) -> None:
    """Write down that something of it lies on a host that does not answer; it is cleared when it does."""
    drift.open_(c, subject=w.op.subject, host=host, kind=drift.RESIDUE, recorded={"on": None}, seen=seen,
                policy="repair")  # fmt: skip


async def target_image(w: Work) -> Seen:
    """Bring its image to the target, if its disks go on from one there."""
    view = w.view
    if view.image is None or w.is_shared:
        return Seen(False)
    assert view.other is not None
    assert view.other_datastore is not None
    store = view.other_datastore
    changed = await ensure_on_host(w.rt, await w.other(), view.other, store.id, store.path, view.image)
    return Seen(changed, {"image": view.image.name})


async def target_volumes(w: Work) -> Seen:
    """Make disks on the target for the copy to fill."""
    if w.is_shared:
        return Seen(False)
    disks = await make_disks(w, await w.other(), w.view, other=True)
    return Seen(True, {"disks": [disk.source for disk in disks]})


async def carry(w: Work) -> Seen:
    """Copy its files to the target, each with its checksum; to another kind of host its disks are converted."""
    if w.is_shared:
        return Seen(False)
    here, there = await w.host(), await w.other()
    target = w.carrier(there, other=True)
    async with w.fitting(w.carrier(here), there, came_from=here) as source:
        return Seen(True, {"bytes": await carry_files(source, target, w.view.id)})


async def drop_target(w: Work) -> Seen:
    """Take what was copied away from the target again."""
    if w.view.other is None:
        return Seen(False)
    host = await w.other()
    if (await host.hypervisor.observe(w.name)).power in ON:
        raise Conflict(f"{w.view.name} runs on {host.name}: its disks are not taken away", w.op.subject)
    changed = await host.hypervisor.undefine(w.name)
    return Seen((not w.is_shared and await w.carrier(host, other=True).drop(w.view.id)) or changed)


async def target_define(w: Work) -> Seen:
    """Define it on the target; an address that is good on one host only comes with the switch."""
    return Seen(await define_on(w, await w.other(), without_host_addresses(w.view), other=True))


async def target_undefine(w: Work) -> Seen:
    """Take its definition away from the target."""
    return Seen(w.view.other is not None and await (await w.other()).hypervisor.undefine(w.name))


async def transfer(w: Work) -> Seen:
    """Move it while it runs. Afterwards it runs on the target only."""
    there = await is_there(w)
    if there and await _has_left(w):
        return Seen(False)
    source, target = await w.host(), await w.other()
    driver: MigratesLive = w.power(source, MigratesLive, "migrate live")
    if not there:
        reasons = await driver.preflight(w.name)
        if reasons:
            raise Conflict(
                f"{w.view.name} cannot be migrated live: {'; '.join(reasons)}", w.op.subject, {"reasons": reasons},
                f"mend that, or: rackflow instance migrate {w.view.name} --cold",
            )  # fmt: skip
    disks = await make_disks(w, target, w.view, other=True)
    nics = [await target.network.ensure_nic(specs.network(x), specs.nic(x)) for x in w.view.leases]
    assert w.view.other is not None
    copied = () if w.is_shared else tuple(disk.name for disk in disks if not disk.read_only)
    move = Move(
        specs.instance(w.view, disks, nics, other=True), w.view.other.address, copied,
        int(w.op.parameters.get("bandwidth_mib_s") or 0),
    )  # fmt: skip
    return Seen(await driver.migrate(move, target.hypervisor, timeout_s=TRANSFER_S), {"copied": list(copied)})


async def is_there(w: Work) -> bool:
    """Say whether it has come to the target. Raise Unreachable, or HostFault, when that cannot be known.

    It runs there and not on the source; or the source has let it go, and the target may have lost its power since.
    One that is paused on the source may have been left so by a migration that came through.
    """
    if w.view.other is None:
        return False
    left = await _has_left(w)
    if not left and (await (await w.host()).hypervisor.observe(w.name)).power is PowerState.RUNNING:
        return False
    try:
        power = (await (await w.other()).hypervisor.observe(w.name)).power
    except Unreachable:
        if not w.other_is_fenced:
            raise
        return _came_to_fenced(w, left)
    return power is PowerState.RUNNING or (left and power in (PowerState.STOPPED, PowerState.CRASHED))


def _came_to_fenced(w: Work, left: bool) -> bool:
    """Say whether it had come to a target that is fenced and silent. Raise HostFault: nobody knows who has its disks.

    left: the source has let it go, or is fenced as well; disks that both see are the same on either.
    """
    if not w.is_fenced:
        return left
    if w.is_shared:
        return False
    assert w.view.host is not None
    assert w.view.other is not None
    source, target = w.view.host.name, w.view.other.name
    raise HostFault(
        f"{w.view.name} was on its way from {source} to {target}, and both are fenced", w.op.subject,
        {"from": source, "to": target}, f"power them on, then: rackflow operation retry {w.op.id}",
    )  # fmt: skip


async def _has_left(w: Work) -> bool:
    """Say whether the source knows it no more, or is fenced, so that it runs nothing."""
    if w.is_fenced:
        return True
    return (await (await w.host()).hypervisor.observe(w.name)).power is PowerState.ABSENT


async def switch(w: Work) -> Seen:
    """Let the record have it on the target."""
    assert w.view.host is not None
    assert w.view.other is not None
    source, target = w.view.host.name, w.view.other.name
    return Seen(True, {"from": source, "to": target}, lambda c: moving.switch(c, w.op, to=target))


async def switch_back(w: Work) -> Seen:
    """Let the record have it on the source again, if it has it on the target."""
    steps = (await w.rt.store.read(lambda c: steps_of(c, [w.op.id])))[w.op.id]
    source = next((str(s.evidence["from"]) for s in steps if s.name == "switch" and s.evidence), None)
    if source is None:
        return Seen(False)
    return Seen(await w.rt.store.write(lambda c: moving.switch(c, w.op, to=source)))


async def clear_source(w: Work) -> Seen:
    """Take it away from the host that it came from; one that does not answer is cleared when it does.

    Raise HostFault while the host that has its disks by now is fenced: those here may be the only ones to be had.
    """
    if w.view.other is None:
        return Seen(False)
    if w.view.host is not None and w.is_fenced and not w.is_shared:
        here, there = w.view.other.name, w.view.host.name
        raise HostFault(
            f"its disks are on {there}, which is fenced: those that it left on {here} are kept", w.op.subject,
            {"host": there, "kept_on": here}, f"power {there} on, then: rackflow operation retry {w.op.id}",
        )  # fmt: skip
    try:
        host = await w.other()
        if (await host.hypervisor.observe(w.name)).power not in (PowerState.ABSENT, PowerState.STOPPED):
            await host.hypervisor.stop(w.name, grace_s=0)
        changed = await host.hypervisor.undefine(w.name)
        if not w.is_shared:
            changed = await w.carrier(host, other=True).drop(w.view.id) or changed
        return Seen(changed)
    except Unreachable as error:
        seen, name = error.to_dict(), w.view.other.name
        await w.rt.store.write(lambda c: owe(c, w, name, seen))
        return Seen(False, {"owed": name})
