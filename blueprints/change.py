"""What is asked for when something that exists is to be changed: the parameters of each verb on an instance."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from blueprints.common import Name, SizeMib, Spec
from blueprints.instance import DiskSpec, NicSpec
from core.states import Verb


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number of seconds from 0 to 3600")
    return value


Grace = Annotated[
    float, BeforeValidator(_number), Field(ge=0, le=3600, description="seconds that the guest has to shut down")
]


class ChangeSpec(Spec):
    """Parameters of one verb."""


class NothingMore(ChangeSpec):
    """The verb takes no parameters."""


class Graceful(ChangeSpec):
    grace_s: Grace | None = None


class Reboot(ChangeSpec):
    hard: bool = Field(default=False, description="reset it without asking the guest")
    grace_s: Grace | None = None


class Migrate(ChangeSpec):
    host: Name | None = Field(default=None, description="to this host; by default the scheduler chooses")
    live: bool | None = Field(default=None, description="without stopping it; by default when it runs and can")
    bandwidth_mib_s: Annotated[int, Field(ge=0)] = Field(default=0, description="of the copy; 0: no limit")
    grace_s: Grace | None = None


class Rename(ChangeSpec):
    name: Name


class Resize(ChangeSpec):
    cpu: Annotated[float, Field(gt=0, le=1024)] | None = None
    memory_mib: SizeMib | None = Field(default=None, alias="memory")

    @model_validator(mode="after")
    def _something(self) -> Resize:
        if self.cpu is None and self.memory_mib is None:
            raise ValueError("give cpu, memory or both")
        return self


class AttachDisk(ChangeSpec):
    disk: DiskSpec

    @model_validator(mode="after")
    def _free_name(self) -> AttachDisk:
        if self.disk.name in ("root", "seed"):
            raise ValueError("a disk needs a name other than root and seed")
        return self


class DetachDisk(ChangeSpec):
    disk: Name = Field(description="it is deleted with its content")


class GrowDisk(ChangeSpec):
    disk: Name = "root"
    size_mib: SizeMib = Field(alias="size")


class AttachNic(ChangeSpec):
    nic: NicSpec


class DetachNic(ChangeSpec):
    nic: Annotated[int, Field(ge=0, description="its number: 0 is eth0")]


class Snapshot(ChangeSpec):
    snapshot: Name
    memory: bool | None = Field(default=None, description="with its memory; by default when it runs and can")
    disk: Name | None = Field(default=None, description="of this disk only; by default of all")


class OneSnapshot(ChangeSpec):
    snapshot: Name


class SaveImage(ChangeSpec):
    image: Name = Field(description="name of the new image")
    disk: Name = "root"


class Backup(ChangeSpec):
    backup: Name | None = Field(default=None, description="by default made from the time")
    incremental: bool = Field(default=True, description="only what changed since the last one, where that is possible")
    keep: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default=None, description="how many to keep, this one included; older ones go"
    )


class OneBackup(ChangeSpec):
    backup: Name
    grace_s: Grace | None = None


PARAMETERS: dict[Verb, type[ChangeSpec]] = {
    Verb.START: NothingMore,
    Verb.SHUTDOWN: Graceful,
    Verb.POWEROFF: NothingMore,
    Verb.REBOOT: Reboot,
    Verb.SUSPEND: NothingMore,
    Verb.RESUME: NothingMore,
    Verb.STOP: NothingMore,
    Verb.UNDEPLOY: Graceful,
    Verb.MIGRATE: Migrate,
    Verb.RENAME: Rename,
    Verb.RESIZE: Resize,
    Verb.ATTACH_DISK: AttachDisk,
    Verb.DETACH_DISK: DetachDisk,
    Verb.GROW_DISK: GrowDisk,
    Verb.ATTACH_NIC: AttachNic,
    Verb.DETACH_NIC: DetachNic,
    Verb.SNAPSHOT: Snapshot,
    Verb.REVERT: OneSnapshot,
    Verb.DROP_SNAPSHOT: OneSnapshot,
    Verb.SAVE_IMAGE: SaveImage,
    Verb.BACKUP: Backup,
    Verb.REVERT_BACKUP: OneBackup,
    Verb.FAILOVER: NothingMore,
    Verb.DELETE: Graceful,
}
