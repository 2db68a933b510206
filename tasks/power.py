"""Steps about power and memory: start, stop, suspend, save, and what undoes them."""

from __future__ import annotations

from core.errors import Unreachable
from core.states import InstanceState, PowerState
from drivers.hosts import Host
from drivers.hypervisor.powers import Reboots, SavesState, Suspends
from tasks.disks import define_on, has_host_address
from tasks.ledger import Seen
from tasks.work import Work


async def start(w: Work) -> Seen:
    """Start it, or let it go on."""
    return Seen(await (await w.host()).hypervisor.start(w.name))


async def stop(w: Work) -> Seen:
    """Ask the guest to shut down, and cut its power after the grace time; a delete cuts at once unless told else."""
    delete = w.op.verb == "delete" and "grace_s" not in w.op.parameters
    grace_s = 0.0 if delete or w.was is InstanceState.SUSPENDED else w.grace_s
    return Seen(await _off(w, grace_s), {"grace_s": grace_s})


async def poweroff(w: Work) -> Seen:
    """Cut its power."""
    return Seen(await _off(w, 0.0))


async def _off(w: Work, grace_s: float) -> bool:
    if w.view.host is None:
        return False
    hypervisor = (await w.host()).hypervisor
    seen = await hypervisor.observe(w.name)
    if seen.power is PowerState.STOPPED:
        return False
    if seen.power is PowerState.ABSENT and w.op.verb in ("delete", "deploy", "restore", "redeploy"):
        return False  # there is nothing to stop: all the better
    return await hypervisor.stop(w.name, grace_s=grace_s)


async def start_again(w: Work) -> Seen:
    """Start it as it ran before, on the host that the record has it on now; what was off stays off.

    Its address may have come with that host only, so what was off is defined with it.
    """
    if not w.runs_before:
        return Seen(has_host_address(w.view) and await define_on(w, await w.host()))
    host = await w.host()
    power = (await host.hypervisor.observe(w.name)).power
    changed = power not in (PowerState.RUNNING, PowerState.PAUSED)
    if changed:
        await define_on(w, host)
        await host.hypervisor.start(w.name)
    if w.was is InstanceState.SUSPENDED and not w.op.parameters.get("then") and power is not PowerState.PAUSED:
        changed = await w.power(host, Suspends, "suspend").suspend(w.name) or changed
    return Seen(changed)


async def runs_now(w: Work) -> bool:
    """Say whether it runs on the host that the record has it on; what was off loses nothing by going back."""
    if not w.runs_before:
        return False
    return await _power(w) in (PowerState.RUNNING, PowerState.PAUSED)


async def is_running(w: Work) -> bool:
    """Say whether it runs there, whatever it did before."""
    return await _power(w) is PowerState.RUNNING


async def _power(w: Work) -> PowerState:
    """Return its power on its host; on a fenced one that is off. Raise Unreachable when it cannot be known."""
    try:
        return (await (await w.host()).hypervisor.observe(w.name)).power
    except Unreachable:
        if not w.is_fenced:
            raise
        return PowerState.STOPPED


async def reboot(w: Work) -> Seen:
    """Ask the guest to reboot; one that does not, or hard, is reset."""
    hard = bool(w.op.parameters.get("hard"))
    hypervisor = w.power(await w.host(), Reboots, "reboot")
    return Seen(await hypervisor.reboot(w.name, hard=hard, grace_s=w.grace_s), {"hard": hard})


async def suspend(w: Work) -> Seen:
    """Pause it in memory; to undo a resume: if it was paused, and is on still."""
    if w.op.verb == "resume":
        return await _on_as_before(w)
    return Seen(await w.power(await w.host(), Suspends, "suspend").suspend(w.name))


async def resume(w: Work) -> Seen:
    """Let it go on; to undo a suspend: if it ran, and is on still."""
    if w.op.verb == "suspend":
        return await _on_as_before(w)
    return Seen(await w.power(await w.host(), Suspends, "resume").resume(w.name))


async def _on_as_before(w: Work) -> Seen:
    """Let it run, or pause it, as it was before; what has lost its power since had nothing left to bring back."""
    host, wanted = await w.host(), PowerState.PAUSED if w.was is InstanceState.SUSPENDED else PowerState.RUNNING
    seen = (await host.hypervisor.observe(w.name)).power
    if seen is wanted or seen not in (PowerState.RUNNING, PowerState.PAUSED):
        return Seen(False)
    driver: Suspends = w.power(host, Suspends, "suspend")
    return Seen(await (driver.suspend if wanted is PowerState.PAUSED else driver.resume)(w.name))


async def state_now(w: Work) -> InstanceState | None:
    """Return the state that its power means; None when its host does not answer, or does not have it."""
    if w.view.host is None:
        return None
    try:
        seen = await (await w.host()).hypervisor.observe(w.name)
    except Unreachable:
        return None
    return _MEANS.get(seen.power)


_MEANS = {
    PowerState.RUNNING: InstanceState.RUNNING, PowerState.PAUSED: InstanceState.SUSPENDED,
    PowerState.STOPPED: InstanceState.OFF, PowerState.CRASHED: InstanceState.OFF,
}  # fmt: skip


async def save(w: Work) -> Seen:
    """Write its memory beside its disks; it is off afterwards."""
    host = await w.host()
    path = w.storage(host).state_path(w.view.id)
    return Seen(await w.power(host, SavesState, "save").save(w.name, path), {"path": path})


async def unsave(w: Work) -> Seen:
    """Let it run on from its saved memory, if it was saved; what is saved is of no use once it runs."""
    host = await w.host()
    hypervisor, path = w.power(host, SavesState, "restore"), w.storage(host).state_path(w.view.id)
    power = (await host.hypervisor.observe(w.name)).power
    if power in (PowerState.STOPPED, PowerState.CRASHED):
        if not await hypervisor.has_state(path):
            return Seen(False)  # its host lost its power before that: there is no memory to go on with
        await hypervisor.restore(w.name, path)
    if w.was is InstanceState.SUSPENDED and power is not PowerState.PAUSED:
        await w.power(host, Suspends, "suspend").suspend(w.name)
    await forget_state(w, host)
    return Seen(True)


async def restore(w: Work) -> Seen:
    """Let it run from its saved memory."""
    host = await w.host()
    path = w.storage(host).state_path(w.view.id)
    changed = await w.power(host, SavesState, "restore").restore(w.name, path)
    await forget_state(w, host)
    return Seen(changed)


async def forget_state(w: Work, host: Host) -> None:
    """Take saved memory away: once it runs, going back to it would spoil its disks."""
    await w.storage(host).delete_state(w.view.id)
