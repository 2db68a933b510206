"""What the parts of the fake hypervisor share: the way to the host, and looks before anything is changed."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from core.errors import Conflict, HostFault, Invalid, NotFound, Unsupported
from core.ids import from_host
from core.states import InstanceKind, PowerState
from drivers.fake_things import FakeHost, FakeInstance, FakeVolume
from drivers.hypervisor.base import InstanceSpec, ObservedInstance
from drivers.transport.fake import FakeTransport


class FakePart:
    """powers: the flags of Capabilities that this hypervisor has."""

    def __init__(self, transport: FakeTransport, powers: frozenset[str]) -> None:
        self.transport = transport
        self.powers = powers

    def call(self, verb: str) -> AbstractAsyncContextManager[FakeHost]:
        """Go to the host for one verb of the family."""
        return self.transport.call(f"hypervisor.{verb}")


def known(host: FakeHost, name: str) -> FakeInstance:
    """Return an instance. Raise Conflict (absent)."""
    if name not in host.instances:
        raise Conflict(f"host {host.name}: there is no instance {name}", f"host/{host.name}")
    return host.instances[name]


def found(host: FakeHost, name: str) -> FakeInstance:
    """Return an instance. Raise NotFound."""
    if name not in host.instances:
        raise NotFound(f"host {host.name}: no instance {name}", f"host/{host.name}")
    return host.instances[name]


def that_runs(host: FakeHost, name: str, *, paused: bool = True) -> FakeInstance:
    """Return an instance that is on. Raise Conflict (absent, off, and paused unless that is fine)."""
    instance = known(host, name)
    if not instance.is_on or (instance.power is PowerState.PAUSED and not paused):
        raise Conflict(f"host {host.name}: {name} does not run", f"host/{host.name}", fix="start it")
    return instance


def check(host: FakeHost, spec: InstanceSpec) -> None:
    """Look whether a spec can be defined. Raise Unsupported, Invalid, NotFound, Conflict (the name is taken)."""
    subject, there = f"instance/{spec.id}", host.instances.get(spec.name)
    if spec.kind not in host.kinds:
        raise Unsupported(f"host {host.name} does not run a {spec.kind}", subject)
    if there is not None and (there.spec is None or there.spec.id != spec.id):
        raise Conflict(f"host {host.name}: {spec.name} exists and is not ours", subject)
    if there is None and from_host(spec.name) != spec.id:
        raise Invalid(f"{spec.name} is not the name of instance {spec.id}", subject)
    for disk in spec.disks:
        if disk.image_fingerprint and disk.image_fingerprint not in host.images:
            image = disk.image_fingerprint[:12]
            if there is None:  # one that is there has its disk already
                raise NotFound(f"host {host.name}: no image {image}", subject, fix="import it first")
    for nic in spec.nics:
        if nic.bridge not in host.bridges:
            raise NotFound(f"host {host.name}: no bridge {nic.bridge}", subject, fix="prepare it first")


def require_disks(host: FakeHost, instance: FakeInstance, spec: InstanceSpec) -> None:
    """Look whether all disks are there to be opened. Raise HostFault."""
    for disk in spec.disks:
        if not host.disk_is_there(instance, disk):
            raise HostFault(
                f"host {host.name}: disk {disk.name} of {spec.name} is not there", f"instance/{spec.id}",
                {"source": disk.source},
            )  # fmt: skip


def make_own_disks(host: FakeHost, instance: FakeInstance, spec: InstanceSpec, *, grow: bool) -> None:
    """Make the disks that the hypervisor holds itself, or grow them."""
    for disk in spec.disks:
        if disk.kind == "pool":
            content = ""
            if disk.image_fingerprint in host.images:
                content = str(host.images[disk.image_fingerprint].properties.get("content", ""))
            volume = instance.own.setdefault(disk.name, FakeVolume(disk.name, disk.size_mib, content=content))
            if grow:
                volume.size_mib = max(volume.size_mib, disk.size_mib)


def seen(instance: FakeInstance) -> ObservedInstance:
    """Return an instance as it is observed."""
    spec = instance.what
    if spec is None:
        return ObservedInstance(instance.name, instance.power, instance.kind, None, reason=instance.reason)
    return ObservedInstance(
        name=instance.name, power=instance.power, kind=instance.kind,
        instance_id=instance.spec.id if instance.spec else None, cpus=spec.cpu, memory_mib=spec.memory_mib,
        cpu_seconds=instance.cpu_used_s(), memory_used_mib=spec.memory_mib // 2 if instance.is_on else None,
        disks=tuple(disk.source for disk in spec.disks),
        addresses=tuple(n.address.split("/")[0] for n in spec.nics if n.address) if instance.is_on else (),
        reason=instance.reason,
    )  # fmt: skip


def absent(name: str) -> ObservedInstance:
    """Return what is observed of an instance that is not there."""
    return ObservedInstance(name, PowerState.ABSENT, InstanceKind.VM, None)
