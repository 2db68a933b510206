"""Firecracker: snapshots. The VMM writes memory and devices of what it holds paused; disks are copied meanwhile."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from core.clock import rfc3339
from core.errors import Conflict, NotFound, Unsupported
from core.states import PowerState
from drivers.hypervisor import firecracker_config as config
from drivers.hypervisor import firecracker_scripts as scripts
from drivers.hypervisor.firecracker_core import HELD_BY_SNAPSHOT, FirecrackerCore, subject_of
from drivers.hypervisor.firecracker_seen import Vm
from drivers.hypervisor.powers import Snapshots, SnapshotSeen

_COPY_S = 1800.0  # of all its disks, or its memory


class SnapshotsMicroVm(FirecrackerCore, Snapshots):
    """Part of FirecrackerHypervisor."""

    async def snapshots(self, name: str) -> list[SnapshotSeen]:
        """Return its snapshots, oldest first. Raise Conflict if absent."""
        return await self._snapshots(await self._there(name))

    async def _snapshots(self, vm: Vm) -> list[SnapshotSeen]:
        folder = config.snapshots_of(vm.wanted)
        lines = (await self._script(scripts.SNAPSHOTS, folder)).stdout.splitlines() if folder else []
        return [
            SnapshotSeen(name, bool(memory), rfc3339(datetime.fromtimestamp(int(at_s), UTC)) or "")
            for at_s, name, *memory in map(str.split, lines)
        ]

    async def snapshot(self, name: str, snapshot: str, *, memory: bool = False) -> bool:
        """Snapshot all disks; memory: and the memory of what runs. Raise Unsupported (running without memory)."""
        return await self.alone(name, lambda: self._snapshot(name, snapshot, memory))

    async def _snapshot(self, name: str, snapshot: str, memory: bool) -> bool:
        vm = await self._there(name)
        if snapshot in [one.name for one in await self._snapshots(vm)]:
            await self._let_go(vm)
            return False
        if not vm.runs:
            return await self._keep(vm, snapshot)
        if not memory:
            raise Unsupported(
                f"{name} runs: a snapshot of its disks alone would be what a power cut leaves", subject_of(name), {},
                "shut it down, or keep its memory, too",
            )  # fmt: skip
        was_paused = await self._power(vm) is PowerState.PAUSED and vm.held != HELD_BY_SNAPSHOT
        if not was_paused:
            await self._set_paused(name, True, HELD_BY_SNAPSHOT)
        try:
            return await self._keep(vm, snapshot, await self._write_memory(name))
        finally:
            if not was_paused:
                await self._set_paused(name, False)

    async def _let_go(self, vm: Vm) -> None:
        """Resume what a call that was killed has left paused."""
        if vm.runs and vm.held == HELD_BY_SNAPSHOT:
            await self._set_paused(vm.name, False)

    async def _write_memory(self, name: str) -> tuple[str, str]:
        state, memory = self.place.snapshot_files(name)
        body = {"snapshot_type": "Full", "snapshot_path": state, "mem_file_path": memory}
        await self._call(name, "PUT", "/snapshot/create", body, doing="saving the memory of", timeout_s=_COPY_S)
        return self.place.made(name)

    async def _keep(self, vm: Vm, snapshot: str, memory: tuple[str, str] = ("", "")) -> bool:
        words = [config.snapshots_of(vm.wanted), snapshot, *memory, *config.writable(vm.wanted)]
        return await self._changed(
            scripts.SNAPSHOT, *words, stdin=config.dumps(vm.wanted).encode(), timeout_s=_COPY_S
        )

    async def revert(self, name: str, snapshot: str) -> bool:
        """Go back. With memory it runs afterwards, else as before. Raise NotFound, Conflict (other disks)."""
        return await self.alone(name, lambda: self._revert(name, snapshot))

    async def _revert(self, name: str, snapshot: str) -> bool:
        vm = await self._there(name)
        kept = next((one for one in await self._snapshots(vm) if one.name == snapshot), None)
        if kept is None:
            raise NotFound(f"{name} has no snapshot {snapshot}", subject_of(name), {"snapshot": snapshot})
        folder = f"{config.snapshots_of(vm.wanted)}/{snapshot}"
        wanted = json.loads(await self._transport.get(f"{folder}/definition.json", sudo=True))
        if config.names(wanted["disks"]) != config.names(vm.wanted["disks"]):
            raise Conflict(
                f"{name} has other disks than at snapshot {snapshot}", subject_of(name),
                {"then": config.names(wanted["disks"]), "now": config.names(vm.wanted["disks"])},
                "attach or detach disks as it was then",
            )  # fmt: skip
        await self._cut(name)
        await self._script(scripts.REVERT, folder, *config.writable(wanted), timeout_s=_COPY_S)
        if kept.memory:
            await self._load(name, wanted, folder)
        elif vm.runs:
            await self._start_vmm(name, wanted)
        return True

    async def _load(self, name: str, wanted: Mapping[str, Any], folder: str) -> None:
        await self._start_vmm(name, wanted, snapshot=folder)
        state, memory = self.place.snapshot_files(name, folder)
        body = {
            "snapshot_path": state, "mem_backend": {"backend_type": "File", "backend_path": memory}, "resume_vm": True,
        }  # fmt: skip
        try:
            await self._call(name, "PUT", "/snapshot/load", body, doing="restoring", timeout_s=_COPY_S)
            if wanted["nics"]:  # a snapshot holds no metadata
                await self._call(name, "PUT", "/mmds", wanted["metadata"], doing="restoring")
        except BaseException:
            await self._cut(name)  # an empty VMM would look like one that runs
            raise

    async def drop_snapshot(self, name: str, snapshot: str) -> bool:
        """Take a snapshot away; absent is fine."""

        async def work() -> bool:
            folder = config.snapshots_of((await self._there(name)).wanted)
            return bool(folder) and await self._changed(scripts.DROP, folder, snapshot)

        return await self.alone(name, work)
