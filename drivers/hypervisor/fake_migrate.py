"""Live migration between simulated hosts.

Three phases, each a verb of both hosts with faults before and after it: copy (disks and memory go over), switch (in
one moment it stops here and runs there), leave (the definition here goes). Until the switch it runs on the source.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from core.errors import Busy, Conflict, HostFault, Unsupported
from core.states import InstanceKind
from drivers.fake_things import FakeHost, FakeInstance, FakeVolume
from drivers.hypervisor.base import Hypervisor
from drivers.hypervisor.fake_part import FakePart, check, known, require_disks, that_runs
from drivers.hypervisor.powers import MigratesLive, Move
from drivers.transport.base import Progress

PIECES = 4


class FakeMigratesLive(FakePart, MigratesLive):
    async def migrate(
        self, move: Move, target: Hypervisor, *, timeout_s: float, progress: Progress | None = None
    ) -> bool:
        if not isinstance(target, FakePart):
            raise Unsupported("only to another simulated host", f"instance/{move.spec.id}")
        try:
            async with asyncio.timeout(timeout_s):
                if await self._moved(move, target):
                    return await self._leave(move, target)
                await self._copy(move, target, progress)
                await self._switch(move, target)
        except TimeoutError as error:
            message = f"{move.spec.name} could not be moved within {timeout_s} s; it runs on"
            raise Busy(message, f"instance/{move.spec.id}") from error
        return await self._leave(move, target)

    @asynccontextmanager
    async def _both(self, phase: str, target: FakePart) -> AsyncIterator[tuple[FakeHost, FakeHost]]:
        async with self.call(f"migrate.{phase}") as here, target.call(f"migrate.{phase}") as there:
            self.transport.require_alive("hypervisor.migrate")
            yield here, there

    async def _moved(self, move: Move, target: FakePart) -> bool:
        """Observe both sides: has it been moved already? Raise Conflict, Unsupported, HostFault before any change."""
        async with self.call("migrate") as here, target.call("migrate.observe") as there:
            name = move.spec.name
            if name in there.instances and there.instances[name].is_on:
                return True
            instance = that_runs(here, name)
            reasons = _reasons(instance)
            if reasons:
                raise Unsupported(f"{name} cannot be moved while it runs: {'; '.join(reasons)}", f"host/{here.name}")
            check(there, move.spec)
            require_disks(there, FakeInstance(name, move.spec.kind, None), move.spec)
            for _, volume in _pairs(move, here, there):
                if volume.used_by:
                    raise Conflict(f"disk {volume.name} is in use on {there.name}", f"host/{there.name}")
            return False

    async def _copy(self, move: Move, target: FakePart, progress: Progress | None) -> None:
        async with self._both("copy", target) as (here, there):
            for done in range(1, PIECES + 1):
                await asyncio.sleep(0)
                self.transport.require_alive("hypervisor.migrate")
                target.transport.require_alive("hypervisor.migrate")
                for source, copy in _pairs(move, here, there):
                    copy.content = source.content if done == PIECES else f"{done}/{PIECES} of {source.content}"
                if progress is not None:
                    progress(done * move.spec.memory_mib * 2**20 // PIECES, move.spec.memory_mib * 2**20)

    async def _switch(self, move: Move, target: FakePart) -> None:
        async with self._both("switch", target) as (here, there):
            instance = that_runs(here, move.spec.name)
            pairs, memory, power = _pairs(move, here, there), instance.memory, instance.power
            for source, copy in pairs:  # what was written since
                copy.content, copy.size_mib = source.content, max(source.size_mib, copy.size_mib)
                copy.snapshots = dict(source.snapshots)
            here.power_off(instance, reason="migrated")
            moved = replace(instance, spec=move.spec)
            there.instances[move.spec.name] = moved
            there.power_on(moved, memory=memory)
            moved.power = power

    async def _leave(self, move: Move, target: FakePart) -> bool:
        """Take the definition away here, once it runs there; the disks are storage's."""
        async with self.call("migrate.leave") as here:
            instance = here.instances.get(move.spec.name)
            if instance is None:
                return False
            if instance.is_on:
                raise Conflict(f"{move.spec.name} runs on {here.name} as well", f"instance/{move.spec.id}")
            del here.instances[move.spec.name]
            return True

    async def preflight(self, name: str) -> list[str]:
        async with self.call("preflight") as host:
            return _reasons(known(host, name))


def _reasons(instance: FakeInstance) -> list[str]:
    container = ["a container cannot be moved while it runs"] if instance.kind is InstanceKind.CONTAINER else []
    return [*container, *instance.bound]


def _pairs(move: Move, here: FakeHost, there: FakeHost) -> list[tuple[FakeVolume, FakeVolume]]:
    """Return (source, copy) of each disk that is to be copied."""
    wanted = {disk.name: disk for disk in move.spec.disks if disk.name in move.copy_disks}
    sources = {volume.name: volume for volume in here.disks(known(here, move.spec.name))}
    pairs = []
    for name, disk in wanted.items():
        copy = there.volume_at(disk.source)
        if name not in sources or copy is None or copy is sources[name]:
            raise HostFault(f"disk {name} of {move.spec.name} cannot be copied to {there.name}", f"host/{there.name}")
        pairs.append((sources[name], copy))
    return pairs
