"""Images, volumes and their snapshots in any order, against a model of a datastore."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from core.errors import Conflict, NotFound, Unsupported
from core.ids import new_id
from drivers.conformance.cases import raises
from drivers.conformance.explore import FAULTS, Do, How, Machine
from drivers.conformance.rigs import StorageRig
from drivers.hypervisor.base import DiskAttachment
from drivers.storage.base import VolumeSpec

MOST = 4  # disks at a time
PICK, TEXTS, NAMES = st.integers(0, MOST - 1), st.sampled_from(["one", "two"]), st.sampled_from(["s1", "s2"])
GROWTH = st.sampled_from([-8, 0, 8, 24])


@dataclass
class Disk:
    """What a disk should be. content None: as its image has it; kept: the size and content of each snapshot."""

    spec: VolumeSpec
    seen: DiskAttachment
    content: str | None = None
    kept: dict[str, tuple[int, str | None]] = field(default_factory=dict)


def some_disk(machine: Any) -> bool:
    return bool(machine.disks)


class StorageMachine(Machine):
    """Make, grow, write, snapshot, revert, delete, any of it killed, done twice, or disturbed."""

    def __init__(self, do: Do, rig: StorageRig) -> None:
        super().__init__(do, rig.disturb, rig.effort)
        self.rig, self.store = rig, rig.storage
        self.staged, self.snapshots = False, True
        self.disks: list[Disk] = []

    @initialize()
    def prepare(self) -> None:
        self.do(self.store.prepare())

    def one(self, pick: int) -> Disk:
        return self.disks[pick % len(self.disks)]

    @rule(how=FAULTS)
    def stage(self, how: How) -> None:
        self.change("ensure_image", lambda: self.store.ensure_image(self.rig.image), not self.staged, how)
        self.staged = True

    @rule(how=FAULTS)
    def unstage(self, how: How) -> None:
        def call() -> Any:
            return self.store.delete_image(self.rig.image.sha256)

        if self.rig.overlays and any(disk.spec.image_sha256 for disk in self.disks):
            self.note("delete_image, which is in use")
            with raises(Conflict):
                self.do(call())
            return
        self.change("delete_image", call, self.staged, how)
        self.staged = False

    @precondition(lambda self: len(self.disks) < MOST)
    @rule(of_image=st.booleans(), how=FAULTS, beside=st.booleans())
    def make(self, of_image: bool, how: How, beside: bool) -> None:
        alone = [one for one in self.disks if len([o for o in self.disks if _owner(o) == _owner(one)]) == 1]
        owner, name = (_owner(alone[0]), "data1") if beside and alone else (new_id(), "root")
        if any((_owner(disk), disk.spec.name) == (owner, name) for disk in self.disks):
            name = "root"
        image = self.rig.image
        spec = VolumeSpec(owner, name, 0 if of_image else 16, image.sha256 if of_image else "", image.format)
        if of_image and not self.staged:
            self.note("ensure_volume of an image that is not there")
            with raises(NotFound):
                self.do(self.store.ensure_volume(spec))
            return
        self.disks.append(Disk(spec, self._ensured(spec, how)))

    def _ensured(self, spec: VolumeSpec, how: How) -> DiskAttachment:
        """Ensure a volume, with a fault, and return what the last call said."""
        said: list[DiskAttachment] = []

        async def call() -> bool:
            said.append(await self.store.ensure_volume(spec))
            return True

        self.change(f"ensure_volume {spec.name} of {spec.instance_id} {spec.size_mib} MiB", call, True, how)
        assert all(replace(one, size_mib=0) == replace(said[0], size_mib=0) for one in said)
        return said[-1]

    @precondition(some_disk)
    @rule(pick=PICK, more=GROWTH, how=FAULTS)
    def grow(self, pick: int, more: int, how: How) -> None:
        disk = self.one(pick)
        now = disk.seen.size_mib
        spec = replace(disk.spec, size_mib=max(now + more, 0))
        seen = self._ensured(spec, how)
        if now:  # else the size of its image, which nobody has told
            assert seen.size_mib == max(now, spec.size_mib), f"{spec.name} has {seen.size_mib} MiB, not at least {now}"
        assert seen.source == disk.seen.source
        disk.spec, disk.seen = spec, seen

    @precondition(some_disk)
    @rule(pick=PICK, text=TEXTS)
    def write(self, pick: int, text: str) -> None:
        disk = self.one(pick)
        self.note(f"write {text} to {disk.spec.name} of {_owner(disk)}")
        self.do(self.rig.tools.write(disk.seen, text))
        disk.content = text

    @precondition(some_disk)
    @rule(pick=PICK, name=NAMES, how=FAULTS)
    def snapshot(self, pick: int, name: str, how: How) -> None:
        disk = self.one(pick)
        self._on_snapshots("snapshot_volume", disk, self.store.snapshot_volume, name, name not in disk.kept, how)
        if self.snapshots:
            disk.kept.setdefault(name, (disk.seen.size_mib, disk.content))

    @precondition(some_disk)
    @rule(pick=PICK, name=NAMES, how=FAULTS)
    def revert(self, pick: int, name: str, how: How) -> None:
        disk = self.one(pick)
        if name not in disk.kept:
            return
        self._on_snapshots("revert_volume", disk, self.store.revert_volume, name, None, how)
        size_mib, disk.content = disk.kept[name]
        disk.seen = replace(disk.seen, size_mib=size_mib)

    @precondition(some_disk)
    @rule(pick=PICK, name=NAMES, how=FAULTS)
    def drop(self, pick: int, name: str, how: How) -> None:
        disk = self.one(pick)
        self._on_snapshots(
            "drop_volume_snapshot", disk, self.store.drop_volume_snapshot, name, name in disk.kept, how
        )
        disk.kept.pop(name, None)

    def _on_snapshots(
        self, verb: str, disk: Disk, call: Callable[..., Any], name: str, expected: bool | None, how: How
    ) -> None:
        """Do a verb on snapshots, where the driver has them; expected None: whatever it says."""
        async def able() -> bool:
            try:
                said: bool = await call(_owner(disk), disk.spec.name, name)
                return said
            except Unsupported:
                self.snapshots = False
                return bool(expected)

        if self.snapshots:
            what = f"{verb} {name} of {disk.spec.name} of {_owner(disk)}"
            if expected is None:
                self.note(what)
                self.do(able())
            else:
                self.change(what, able, expected, how)

    @precondition(some_disk)
    @rule(pick=PICK, how=FAULTS)
    def delete_one(self, pick: int, how: How) -> None:
        disk = self.one(pick)
        what = f"delete_volume {disk.spec.name} of {_owner(disk)}"
        self.change(what, lambda: self.store.delete_volume(_owner(disk), disk.spec.name), True, how)
        self.disks.remove(disk)
        if not any(_owner(other) == _owner(disk) for other in self.disks):
            self.do(self.store.delete_volumes(_owner(disk)))  # the folder may stay behind the last one

    @precondition(some_disk)
    @rule(pick=PICK, how=FAULTS)
    def delete_all_of_one(self, pick: int, how: How) -> None:
        owner = _owner(self.one(pick))
        self.change(f"delete_volumes of {owner}", lambda: self.store.delete_volumes(owner), True, how)
        self.disks = [disk for disk in self.disks if _owner(disk) != owner]

    @invariant()
    def all_is_there(self) -> None:
        assert self.do(self.store.images()) == ([self.rig.image.sha256] if self.staged else [])
        found, wanted = sorted(self.do(self.store.volumes())), sorted({_owner(disk) for disk in self.disks})
        assert found == wanted, f"volumes of {found}, not of {wanted}"

    @invariant()
    def nothing_is_lost(self) -> None:
        for disk in self.disks:
            if disk.content is not None:
                found = self.do(self.rig.tools.read(disk.seen))
                where = f"{disk.spec.name} of {_owner(disk)}"
                assert found == disk.content, f"{where} holds {found!r}, not {disk.content!r}"

    @invariant()
    def free_space_is_a_part_of_all(self) -> None:
        found = self.do(self.store.capacity())
        assert 0 <= found.free_mib <= found.total_mib

    def teardown(self) -> None:
        """Leave the datastore empty for the next one."""
        for owner in {_owner(disk) for disk in self.disks}:
            self.do(self.store.delete_volumes(owner))
        self.do(self.store.delete_image(self.rig.image.sha256))


def _owner(disk: Disk) -> str:
    return disk.spec.instance_id
