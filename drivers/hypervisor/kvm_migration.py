"""KVM: a running instance goes to another host. Both sides are looked at first; only one of them ever runs."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from pathlib import PurePosixPath
from typing import Any

import libvirt

from core.errors import Busy, Conflict, Drift, HostFault, RackflowError, Unsupported
from drivers.hypervisor import domain_calls as calls
from drivers.hypervisor import domain_migrate as migrate
from drivers.hypervisor.base import Hypervisor
from drivers.hypervisor.domain_seen import DomainSeen, read
from drivers.hypervisor.domain_snapshots import checkpoints_xml, know_checkpoints
from drivers.hypervisor.kvm_core import KvmCore
from drivers.hypervisor.powers import MigratesLive, Move
from drivers.transport.base import Progress

_COMES_IN = (libvirt.VIR_DOMAIN_PAUSED_MIGRATION, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)


class MigratesVm(KvmCore, MigratesLive):
    """Part of KvmHypervisor."""

    async def preflight(self, name: str) -> list[str]:
        """Return why it could not be migrated live now, in words. Raise Conflict if absent."""
        return await self._call(name, "looking at", lambda c: migrate.obstacles(c, name))

    async def migrate(
        self, move: Move, target: Hypervisor, *, timeout_s: float, progress: Progress | None = None
    ) -> bool:
        """Move a running instance. Cancelled, late or failed, it runs on the source.

        Raise Conflict (it does not run, or has what cannot be moved), Busy (late, or it is being moved already),
        Unsupported (another kind of host), HostFault (no shared folder), Drift (it runs on both hosts).
        """
        name = move.spec.name
        if not isinstance(target, MigratesVm):
            raise Unsupported(f"{name} is a VM of KVM and can only move to a KVM host", calls.subject(name))
        if await self._is_there(name, target):
            await self._finish(move, target)
            return False
        domain_type, _ = await self.find_domain_type()
        if domain_type != (there := (await target.find_domain_type())[0]):
            raise Unsupported(
                f"{name} runs under {domain_type}, the target has {there}", calls.subject(name),
                fix="move it shut down",
            )
        live, kept = await self._call(
            name, "looking at", lambda c: migrate.source_xml(c, name, move, domain_type)
        )
        marks = await self._call(name, "looking at", lambda c: checkpoints_xml(c, name))
        await self._move(move, target, live, kept, timeout_s, progress)
        if marks:  # their bitmaps lie in the disks; libvirt's list of them stays behind
            await target._call(name, "looking at", lambda c: know_checkpoints(c, name, marks))
        await self._finish(move, target)
        return True

    async def _is_there(self, name: str, target: MigratesVm) -> bool:
        """Say whether it runs on the target. What a killed attempt left in between is put in order."""
        here, _ = await self._state(name)
        there, reason = await target._state(name)
        if there == migrate.RUNNING or (there == migrate.PAUSED and reason not in _COMES_IN):
            if here == migrate.RUNNING:
                raise Drift(
                    f"{name} runs on both hosts", calls.subject(name), {"source": self._host, "target": target._host},
                    "stop one of them: the one whose disks are not the instance's",
                )
            return True
        if there == migrate.PAUSED:
            raise Busy(
                f"{name} is on its way to {target._host}", calls.subject(name), {"reason": reason},
                "wait until that has ended",
            )
        if here in (migrate.OFF, migrate.ABSENT):
            raise Conflict(
                f"{name} does not run on {self._host}", calls.subject(name), {"here": here, "there": there},
                "start it, or move it shut down",
            )
        await self._go_on_if_left(name)
        return False

    async def _state(self, name: str) -> tuple[str, int]:
        return await self._call(name, "looking at", lambda c: migrate.state(c, name))

    async def _go_on_if_left(self, name: str) -> None:
        """Resume a source that a killed migration left paused; the target has been seen not to run."""
        state, reason = await self._state(name)
        if state == migrate.PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_MIGRATION:
            await self._call(name, "resuming", lambda c: migrate.resume_if_paused(c, name))

    async def _move(
        self, move: Move, target: MigratesVm, live: str, kept: str, timeout_s: float, progress: Progress | None
    ) -> None:
        name = move.spec.name
        seen = await self._call(name, "looking at", lambda c: read(calls.require_active(c, name).XMLDesc(0)))
        found = migrate.parameters(seen, move, live, kept)
        flags = migrate.FLAGS
        if move.copy_disks:
            same = await self._same_bases(move, seen, target)
            flags |= libvirt.VIR_MIGRATE_NON_SHARED_INC if same else libvirt.VIR_MIGRATE_NON_SHARED_DISK
        try:
            await self._lead(name, target, flags, found, timeout_s, progress)
        except RackflowError as error:
            if not migrate.is_unsafe(error):
                raise
            await self._prove_shared(move, seen, target)
            await self._lead(name, target, flags | migrate.UNSAFE, found, timeout_s, progress)

    async def _lead(
        self, name: str, target: MigratesVm, flags: int, found: dict[str, Any], timeout_s: float,
        progress: Progress | None,
    ) -> None:
        """Run the migration. When it ends badly, see that the source goes on."""
        connection = await target._jobs.call(f"connecting for {name}", lambda c: c, subject=calls.subject(name))
        under_way = threading.Event()

        def move(c: Any) -> None:
            under_way.set()
            try:
                migrate.run(c, name, connection, flags, found)
            finally:
                under_way.clear()

        try:
            await self._job(name, "moving", move, timeout_s=timeout_s, progress=progress)
        except BaseException:
            if under_way.is_set():  # it could not be aborted: libvirtd on the target hangs
                target._jobs.cut()
            settling = asyncio.ensure_future(self._settle(name, target))
            self._aborting.add(settling)
            settling.add_done_callback(self._aborting.discard)
            await asyncio.shield(settling)
            raise

    async def _settle(self, name: str, target: MigratesVm) -> None:
        """Let the source go on if it was left paused and the target does not have it. What fails here, fails later."""
        try:
            there, _ = await target._state(name)
            if there in (migrate.ABSENT, migrate.OFF):
                await self._go_on_if_left(name)
        except RackflowError:
            return

    # -- disks

    async def _same_bases(self, move: Move, seen: DomainSeen, target: MigratesVm) -> bool:
        """Say whether the disks to be copied have the same images below them on both sides, by their names (sha256).

        Then only the upper layer has to be copied, else all of a disk.
        """
        names = {one.name: one.source for one in move.spec.disks}
        for name in move.copy_disks:
            disk = seen.disk(name, names.get(name, ""))
            if disk is None or name not in names:
                return False
            if await self._base_of(disk.source) != await target._base_of(names[name]):
                return False
        return True

    async def _base_of(self, path: str) -> str:
        """Return the name of the file that a disk is backed by, "" if by none. Raise HostFault if it is not there."""
        argv = ["qemu-img", "info", "--force-share", "--output=json", path]
        found = await self._transport.run(argv, sudo=True)
        return PurePosixPath(json.loads(found.stdout).get("backing-filename", "")).name

    async def _prove_shared(self, move: Move, seen: DomainSeen, target: MigratesVm) -> None:
        """Raise HostFault unless each disk that is not copied lies in a folder that both hosts see."""
        copied = set(migrate.copied_targets(seen, move))
        for one in move.spec.disks:
            disk = seen.disk(one.name, one.source)
            if disk is None or disk.target in copied or disk.read_only:
                continue
            mark = f".rackflow-{secrets.token_hex(8)}"
            here, there = (str(PurePosixPath(path).with_name(mark)) for path in (disk.source, one.source))
            await self._transport.run(["touch", here], sudo=True)
            try:
                seen_there = await target._transport.run(["test", "-e", there], sudo=True, check=False)
            finally:
                await self._transport.run(["rm", "-f", here], sudo=True)
            if seen_there.exit_code != 0:
                raise HostFault(
                    f"disk {one.name} of {move.spec.name} does not lie in a folder that both hosts see",
                    calls.subject(move.spec.name), {"source": disk.source, "target": one.source},
                    "copy it (copy_disks), or mount the datastore on both hosts",
                )

    async def _finish(self, move: Move, target: MigratesVm) -> None:
        """See that it is on the target to stay, and that nothing is left on the source."""
        name, (domain_type, _) = move.spec.name, await target.find_domain_type()
        if (state := (await target._state(name))[0]) != migrate.RUNNING:
            raise HostFault(
                f"{name} was moved to {target._host} and does not run there", calls.subject(name), {"state": state},
                "see the log of its QEMU on both hosts",
            )
        await target._call(name, "defining", lambda c: calls.define(c, move.spec, domain_type, target._marks))
        await self._call(name, "taking away", lambda c: migrate.clean_source(c, name, self._marks))
