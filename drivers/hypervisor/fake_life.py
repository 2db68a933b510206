"""What can be done to a simulated instance that runs: pause, reboot, save and restore, reconfigure."""

from __future__ import annotations

import asyncio

from core.errors import Conflict, Unsupported
from core.states import PowerState
from drivers.fake_files import pack_memory, unpack_memory
from drivers.fake_things import FakeHost, FakeInstance
from drivers.hypervisor.base import InstanceSpec
from drivers.hypervisor.fake_part import FakePart, check, known, make_own_disks, require_disks, that_runs
from drivers.hypervisor.powers import Reboots, Reconfigures, SavesState, Suspends


class FakeSuspends(FakePart, Suspends):
    async def suspend(self, name: str) -> bool:
        return await self._set("suspend", name, PowerState.PAUSED)

    async def resume(self, name: str) -> bool:
        return await self._set("resume", name, PowerState.RUNNING)

    async def _set(self, verb: str, name: str, power: PowerState) -> bool:
        async with self.call(verb) as host:
            instance = that_runs(host, name)
            changed, instance.power = instance.power is not power, power
            return changed


class FakeReboots(FakePart, Reboots):
    async def reboot(self, name: str, *, hard: bool = False, grace_s: float = 30.0) -> bool:
        async with self.call("reboot") as host:
            instance = that_runs(host, name)
            if instance.stubborn and not hard:
                await asyncio.sleep(grace_s)
                self.transport.require_alive("hypervisor.reboot")
            host.power_off(instance)
            host.power_on(instance)
            return True


class FakeSavesState(FakePart, SavesState):
    async def save(self, name: str, path: str) -> bool:
        async with self.call("save") as host:
            instance = known(host, name)
            files = host.files_at(path)
            if not instance.is_on:
                if path in files:
                    return False
                raise Conflict(f"host {host.name}: {name} does not run", f"host/{host.name}", fix="start it")
            files[path] = pack_memory(instance.memory, _contents(host, instance))
            host.power_off(instance)
            return True

    async def restore(self, name: str, path: str) -> bool:
        async with self.call("restore") as host:
            instance = known(host, name)
            if instance.is_on:
                return False
            data = host.files_at(path).get(path)
            if data is None or instance.spec is None:
                raise Conflict(f"host {host.name}: no saved state {path}", f"host/{host.name}")
            require_disks(host, instance, instance.spec)
            memory, disks = unpack_memory(data)
            if host.around and disks != _contents(host, instance):
                host.around.note_harm(f"{host.name}/{name} was restored onto disks that have changed since")
            host.power_on(instance, memory=memory)
            return True

    async def has_state(self, path: str) -> bool:
        async with self.call("has_state") as host:
            return path in host.files_at(path)


def _contents(host: FakeHost, instance: FakeInstance) -> dict[str, str]:
    return {volume.name: volume.content for volume in host.disks(instance)}


class FakeReconfigures(FakePart, Reconfigures):
    async def reconfigure(self, spec: InstanceSpec) -> bool:
        async with self.call("reconfigure") as host:
            instance = that_runs(host, spec.name)
            check(host, spec)
            now = instance.active
            if now == spec and instance.spec == spec:
                return False
            self._refuse(now or spec, spec)
            make_own_disks(host, instance, spec, grow=True)
            require_disks(host, instance, spec)
            host.close_disks(instance)
            instance.active = instance.spec = spec
            host.open_disks(instance)
            sizes = {disk.name: disk.size_mib for disk in spec.disks}
            for volume in host.disks(instance):
                volume.size_mib = max(volume.size_mib, sizes[volume.name])
            return True

    def _refuse(self, now: InstanceSpec, spec: InstanceSpec) -> None:
        """Raise Unsupported for what can only be changed while it is off."""
        fixed = ["firmware"] if "resize_live" in self.powers else ["firmware", "cpu", "memory_mib"]
        off = [name for name in fixed if getattr(now, name) != getattr(spec, name)]
        if off:
            message = f"{', '.join(off)} of {spec.name} cannot change while it runs"
            raise Unsupported(message, f"instance/{spec.id}", fix="stop it")
