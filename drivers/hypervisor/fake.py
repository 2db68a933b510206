"""A hypervisor in memory, for VMs and containers; keeps images as LXD does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from core.errors import Conflict, Invalid, NotFound, Unsupported
from core.ids import from_host
from core.states import InstanceKind, PowerState
from drivers.fake_world import FakeHost, FakeInstance
from drivers.hypervisor.base import (
    Capabilities,
    Capacity,
    ExecResult,
    Hypervisor,
    ImageOnHost,
    InstanceSpec,
    ObservedInstance,
)
from drivers.hypervisor.powers import ConsoleLogs, Executes, KeepsImages
from drivers.network.base import Bridge
from drivers.transport.fake import FakeTransport

Program = Callable[[FakeInstance, Sequence[str], bytes], ExecResult]
PROGRAMS: dict[str, Program] = {
    "true": lambda instance, argv, stdin: ExecResult(0, "", ""),
    "false": lambda instance, argv, stdin: ExecResult(1, "", ""),
    "echo": lambda instance, argv, stdin: ExecResult(0, " ".join(argv[1:]) + "\n", ""),
    "cat": lambda instance, argv, stdin: ExecResult(0, stdin.decode(), ""),
    "hostname": lambda instance, argv, stdin: ExecResult(0, instance.name + "\n", ""),
}  # what can be run inside an instance


class FakeHypervisor(Hypervisor, Executes, ConsoleLogs, KeepsImages):
    """The hypervisor of one simulated host."""

    def __init__(self, transport: FakeTransport) -> None:
        self._transport = transport

    async def prepare(self, *, bridges: Sequence[tuple[str, str]] = ()) -> list[str]:
        async with self._transport.call("hypervisor.prepare") as host:
            changed = [] if host.prepared else ["initialised"]
            host.prepared = True
            lxcbr0 = ("lxcbr0", f"10.{host.number >> 8 & 255}.{host.number & 255}.1/24")
            for name, cidr in bridges or [lxcbr0]:
                if name not in host.bridges:
                    host.bridges[name] = Bridge(name, (cidr,) if cidr else (), (), True)
                    changed.append(f"bridge {name}")
            return changed

    async def capabilities(self) -> Capabilities:
        async with self._transport.call("hypervisor.capabilities") as host:
            return Capabilities("fake", host.kinds, "1", "x86_64", exec=True, console_log=True)

    async def capacity(self) -> Capacity:
        async with self._transport.call("hypervisor.capacity") as host:
            return Capacity(host.cpus, host.memory_mib, host.memory_used_mib())

    async def instances(self) -> list[ObservedInstance]:
        async with self._transport.call("hypervisor.instances") as host:
            return [_seen(instance) for instance in host.instances.values()]

    async def observe(self, name: str) -> ObservedInstance:
        async with self._transport.call("hypervisor.observe") as host:
            instance = host.instances.get(name)
            if instance is None:
                return ObservedInstance(name, PowerState.ABSENT, InstanceKind.VM, None)
            return _seen(instance)

    async def define(self, spec: InstanceSpec) -> bool:
        async with self._transport.call("hypervisor.define") as host:
            _check(host, spec)
            there = host.instances.get(spec.name)
            if there is None:
                host.instances[spec.name] = FakeInstance(spec.name, spec.kind, spec)
                return True
            if there.spec is None or there.spec.id != spec.id:
                raise Conflict(f"host {host.name}: {spec.name} exists and is not ours", f"instance/{spec.id}")
            if there.spec == spec:
                return False
            there.spec = spec
            return True

    async def start(self, name: str) -> bool:
        async with self._transport.call("hypervisor.start") as host:
            instance = _known(host, name)
            if instance.power is PowerState.RUNNING:
                return False
            instance.begin()
            return True

    async def stop(self, name: str, *, grace_s: float = 30.0) -> bool:
        async with self._transport.call("hypervisor.stop") as host:
            instance = _known(host, name)
            if instance.power is PowerState.STOPPED:
                return False
            if instance.stubborn:
                await asyncio.sleep(grace_s)
            instance.end()
            return True

    async def undefine(self, name: str) -> bool:
        async with self._transport.call("hypervisor.undefine") as host:
            instance = host.instances.get(name)
            if instance is None:
                return False
            if instance.power is PowerState.RUNNING:
                raise Conflict(f"host {host.name}: {name} runs", f"host/{host.name}", fix="stop it first")
            if instance.spec is None:
                raise Conflict(f"host {host.name}: {name} is not ours", f"host/{host.name}")
            del host.instances[name]
            return True

    async def exec(
        self, name: str, argv: Sequence[str], *, timeout_s: float = 30.0, stdin: bytes = b""
    ) -> ExecResult:
        async with self._transport.call("hypervisor.exec") as host:
            instance = host.instances.get(name)
            if instance is None:
                raise NotFound(f"host {host.name}: no instance {name}", f"host/{host.name}")
            if instance.power is not PowerState.RUNNING:
                raise Conflict(f"host {host.name}: {name} does not run", f"host/{host.name}", fix="start it")
            program = PROGRAMS.get(argv[0])
            if program is None:
                return ExecResult(127, "", f"{argv[0]}: not found\n")
            return program(instance, argv, stdin)

    async def console_log(self, name: str, *, max_bytes: int = 65536) -> str:
        async with self._transport.call("hypervisor.console_log") as host:
            if name not in host.instances:
                raise NotFound(f"host {host.name}: no instance {name}", f"host/{host.name}")
            return "".join(line + "\n" for line in host.instances[name].console)[-max_bytes:]

    async def import_image(self, path: str, fingerprint: str, *, name: str) -> bool:
        async with self._transport.call("hypervisor.import_image") as host:
            if fingerprint in host.images:
                return False
            host.images[fingerprint] = ImageOnHost(fingerprint, _size_of(host, path), {"name": name})
            return True

    async def images(self) -> list[ImageOnHost]:
        async with self._transport.call("hypervisor.images") as host:
            return list(host.images.values())

    async def delete_image(self, fingerprint: str) -> bool:
        async with self._transport.call("hypervisor.delete_image") as host:
            return host.images.pop(fingerprint, None) is not None

    async def close(self) -> None:
        """Nothing is held open."""


def _size_of(host: FakeHost, path: str) -> int:
    if path in host.files:
        return len(host.files[path])
    for folder, store in host.stores.items():
        for sha256, (form, size_bytes) in store.images.items():
            if path == f"{folder}/images/{sha256}.{form}":
                return size_bytes
    raise NotFound(f"host {host.name}: no file {path}", f"host/{host.name}")


def _known(host: FakeHost, name: str) -> FakeInstance:
    if name not in host.instances:
        raise Conflict(f"host {host.name}: there is no instance {name}", f"host/{host.name}")
    return host.instances[name]


def _check(host: FakeHost, spec: InstanceSpec) -> None:
    subject = f"instance/{spec.id}"
    if spec.kind not in host.kinds:
        raise Unsupported(f"host {host.name} does not run a {spec.kind}", subject)
    if from_host(spec.name) != spec.id:
        raise Invalid(f"{spec.name} is not the name of instance {spec.id}", subject)
    for disk in spec.disks:
        if disk.image_fingerprint and disk.image_fingerprint not in host.images:
            image = disk.image_fingerprint[:12]
            raise NotFound(f"host {host.name}: no image {image}", subject, fix="import it first")
    for nic in spec.nics:
        if nic.bridge not in host.bridges:
            raise NotFound(f"host {host.name}: no bridge {nic.bridge}", subject, fix="prepare it first")


def _seen(instance: FakeInstance) -> ObservedInstance:
    spec, running = instance.spec, instance.power is PowerState.RUNNING
    if spec is None:
        return ObservedInstance(instance.name, instance.power, instance.kind, None, reason=instance.reason)
    return ObservedInstance(
        name=instance.name, power=instance.power, kind=instance.kind, instance_id=spec.id, cpus=spec.cpu,
        memory_mib=spec.memory_mib, cpu_seconds=instance.cpu_used_s(),
        memory_used_mib=spec.memory_mib // 2 if running else None,
        disks=tuple(disk.source for disk in spec.disks),
        addresses=tuple(nic.address.split("/")[0] for nic in spec.nics if nic.address) if running else (),
        reason=instance.reason,
    )
