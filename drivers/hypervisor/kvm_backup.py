"""KVM: copies of disks, whole or since a checkpoint (a bitmap in the qcow2 file of what was written)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import suppress

from core.errors import RackflowError, Retryable
from drivers.hypervisor import domain_backup as backups
from drivers.hypervisor.domain_backup import Plan
from drivers.hypervisor.domain_copies import label
from drivers.hypervisor.kvm_core import FOREVER_S
from drivers.hypervisor.kvm_snapshots import SnapshotsVm
from drivers.hypervisor.powers import BacksUp, BackupFile
from drivers.parts import PART_GOES

# $1 disk, $2 its format, $3 file, $4 mark of the part. All of the chain is read; what is written is named when it is
# whole. A call that nobody waits for any more may be writing still: without its part it comes to nothing.
_CONVERT = f"""set -eu
rm -f "$3" "$3".*.part
part=$3.$4.part
{PART_GOES}qemu-img convert -f "$2" -O qcow2 "$1" "$part"
sync "$part"
mv "$part" "$3"
"""


class BacksUpVm(SnapshotsVm, BacksUp):
    """Part of KvmHypervisor."""

    async def backup(
        self, name: str, folder: str, *, checkpoint: str, since: str = "", disks: Sequence[str] = ()
    ) -> list[BackupFile]:
        """Write folder/DISK.qcow2: without a backing file when whole, else the clusters written since a checkpoint.

        What is off is copied whole, and gets no checkpoint. Raise Conflict (absent), Invalid (no such disk), Busy.
        """
        await self._call(name, "backing up", lambda c: backups.abort_backup(c, name))
        await self.drop_checkpoint(name, checkpoint)  # of a call that was killed
        made = await self._call(name, "backing up", lambda c: backups.plan(c, name, since, disks))
        files = {disk.target: f"{folder}/{label(disk)}.qcow2" for disk in made.disks}
        await self._transport.run(["rm", "-f", "--", *files.values()], sudo=True)
        if not made.running:
            for disk in made.disks:
                words = [disk.source, disk.format, files[disk.target], secrets.token_hex(4)]
                await self._transport.run(["sh", "-c", _CONVERT, "sh", *words], sudo=True, timeout_s=FOREVER_S)
            return _files(made, files, whole=True)
        whole = await self._copy(name, made, files, checkpoint)
        return _files(made, files, whole=whole)

    async def _copy(self, name: str, made: Plan, files: dict[str, str], checkpoint: str) -> bool:
        """Copy what runs; return whether all of it was copied. Cancelled or failed: as if it had not begun."""
        try:
            whole = await self._begin(name, made, files, checkpoint)
            pause_s = 0.05
            while not await self._call(name, "backing up", lambda c: backups.ended(c, name)):
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 1.5, 1.0)
            return whole
        except BaseException:
            undoing = asyncio.ensure_future(self._undo(name, files, checkpoint))
            self._aborting.add(undoing)
            undoing.add_done_callback(self._aborting.discard)
            await asyncio.shield(undoing)
            raise

    async def _begin(self, name: str, made: Plan, files: dict[str, str], checkpoint: str) -> bool:
        """Begin; if the increment cannot be had (its bitmap is broken), begin a whole copy. Return whether it is whole.

        A bitmap is broken when QEMU was killed: it had not written down what it knew.
        """
        if made.since:
            try:
                await self._call(
                    name, "backing up", lambda c: backups.begin(c, name, made, files, checkpoint, whole=False)
                )
                return False
            except Retryable:
                raise
            except RackflowError:
                await self._forget_checkpoints(name)
                await self._transport.run(["rm", "-f", "--", *files.values()], sudo=True)
        await self._call(name, "backing up", lambda c: backups.begin(c, name, made, files, checkpoint, whole=True))
        return True

    async def _undo(self, name: str, files: dict[str, str], checkpoint: str) -> None:
        with suppress(RackflowError):  # the next call does it again
            await self._call(name, "aborting the backup of", lambda c: backups.abort_backup(c, name))
            await self.drop_checkpoint(name, checkpoint)
            await self._transport.run(["rm", "-f", "--", *files.values()], sudo=True)


def _files(made: Plan, files: dict[str, str], *, whole: bool) -> list[BackupFile]:
    return [
        BackupFile(label(disk), files[disk.target], "qcow2", "" if whole else made.since.get(disk.target, ""))
        for disk in made.disks
    ]
