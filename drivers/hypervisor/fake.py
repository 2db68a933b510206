"""A hypervisor in memory, for VMs and containers; keeps images as LXD does. Its optional powers can be taken away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import Any

from core.errors import Conflict, NotFound
from core.states import PowerState
from drivers.fake_files import content_of_archive
from drivers.fake_things import FakeHost, FakeInstance
from drivers.hypervisor.base import Capabilities, Capacity, Hypervisor, ImageOnHost, InstanceSpec, ObservedInstance
from drivers.hypervisor.fake_carry import FakeCarries
from drivers.hypervisor.fake_guest import (
    FakeAdopts,
    FakeConsoleLogs,
    FakeConsoles,
    FakeDisplays,
    FakeExecutes,
    FakeTickets,
)
from drivers.hypervisor.fake_life import FakeReboots, FakeReconfigures, FakeSavesState, FakeSuspends
from drivers.hypervisor.fake_migrate import FakeMigratesLive
from drivers.hypervisor.fake_part import FakePart, absent, check, known, make_own_disks, require_disks, seen
from drivers.hypervisor.fake_snapshots import FakeBacksUp, FakeSavesImages, FakeSnapshots
from drivers.hypervisor.powers import KeepsImages
from drivers.network.base import Bridge
from drivers.transport.fake import FakeTransport

POWER_PARTS: dict[str, type[FakePart]] = {
    "exec": FakeExecutes, "console_log": FakeConsoleLogs, "suspend": FakeSuspends, "reboot": FakeReboots,
    "save": FakeSavesState, "reconfigure": FakeReconfigures, "snapshot": FakeSnapshots,
    "migrate_live": FakeMigratesLive, "console": FakeConsoles, "display": FakeDisplays, "ticket": FakeTickets,
    "backup": FakeBacksUp, "adopt": FakeAdopts, "carry": FakeCarries, "save_image": FakeSavesImages,
}  # fmt: skip


class FakeHypervisor(FakePart, Hypervisor, KeepsImages):
    """The hypervisor of one simulated host, without optional powers; `fake_hypervisor` adds them."""

    async def prepare(self, *, bridges: Sequence[tuple[str, str]] = ()) -> list[str]:
        async with self.call("prepare") as host:
            changed = [] if host.prepared else ["initialised"]
            host.prepared = True
            lxcbr0 = ("lxcbr0", f"10.{host.number >> 8 & 255}.{host.number & 255}.1/24")
            for name, cidr in bridges or [lxcbr0]:
                if name not in host.bridges:
                    host.bridges[name] = Bridge(name, (cidr,) if cidr else (), (), True)
                    changed.append(f"bridge {name}")
            return changed

    async def capabilities(self) -> Capabilities:
        async with self.call("capabilities") as host:
            powers: dict[str, Any] = dict.fromkeys(self.powers, True)
            return Capabilities("fake", host.kinds, "1", "x86_64", grants=host.grants, **powers)

    async def capacity(self) -> Capacity:
        async with self.call("capacity") as host:
            return Capacity(host.cpus, host.memory_mib, host.memory_used_mib())

    async def instances(self) -> list[ObservedInstance]:
        async with self.call("instances") as host:
            return [seen(instance) for instance in host.instances.values()]

    async def observe(self, name: str) -> ObservedInstance:
        async with self.call("observe") as host:
            instance = host.instances.get(name)
            return absent(name) if instance is None else seen(instance)

    async def define(self, spec: InstanceSpec) -> bool:
        async with self.call("define") as host:
            check(host, spec)
            there = host.instances.setdefault(spec.name, FakeInstance(spec.name, spec.kind, None))
            if there.spec == spec:
                return False
            there.spec = spec
            make_own_disks(host, there, spec, grow=not there.is_on)
            return True

    async def start(self, name: str) -> bool:
        async with self.call("start") as host:
            instance = known(host, name)
            if instance.power is PowerState.RUNNING:
                return False
            if instance.power is PowerState.PAUSED:
                instance.power = PowerState.RUNNING
                return True
            if instance.spec is not None:
                require_disks(host, instance, instance.spec)
            host.power_on(instance)
            return True

    async def stop(self, name: str, *, grace_s: float = 30.0) -> bool:
        async with self.call("stop") as host:
            instance = known(host, name)
            if instance.power is PowerState.STOPPED:
                return False
            if instance.stubborn:
                await asyncio.sleep(grace_s)
                self.transport.require_alive("hypervisor.stop")
            host.power_off(instance)
            return True

    async def undefine(self, name: str) -> bool:
        async with self.call("undefine") as host:
            instance = host.instances.get(name)
            if instance is None:
                return False
            if instance.is_on:
                raise Conflict(f"host {host.name}: {name} runs", f"host/{host.name}", fix="stop it first")
            if instance.spec is None:
                raise Conflict(f"host {host.name}: {name} is not ours", f"host/{host.name}")
            del host.instances[name]
            return True

    async def import_image(self, path: str, fingerprint: str, *, name: str) -> bool:
        async with self.call("import_image") as host:
            if fingerprint in host.images:
                return False
            size, content = _look(host, path, fingerprint)
            host.images[fingerprint] = ImageOnHost(fingerprint, size, {"name": name, "content": content})
            return True

    async def images(self) -> list[ImageOnHost]:
        async with self.call("images") as host:
            return list(host.images.values())

    async def delete_image(self, fingerprint: str) -> bool:
        async with self.call("delete_image") as host:
            return host.images.pop(fingerprint, None) is not None

    async def close(self) -> None:
        """Nothing is held open."""


@cache
def _class_of(powers: frozenset[str]) -> type[FakeHypervisor]:
    parts = tuple(part for flag, part in POWER_PARTS.items() if flag in powers)
    return type("FakeHypervisor", (FakeHypervisor, *parts), {})


def fake_hypervisor(transport: FakeTransport, powers: frozenset[str]) -> FakeHypervisor:
    """Build a hypervisor that has these optional powers (flags of Capabilities) and no others."""
    return _class_of(powers)(transport, powers)


def _look(host: FakeHost, path: str, fingerprint: str) -> tuple[int, str]:
    """Return the size and the content of an image's file on the host. Raise NotFound."""
    data = host.files_at(path).get(path)
    if data is not None:
        return len(data), content_of_archive(data) or f"image {fingerprint[:12]}"
    for folder, store in host.stores.items():
        for sha256, image in store.images.items():
            if path == f"{folder}/images/{sha256}.{image.format}":
                return image.size_bytes, image.content
    raise NotFound(f"host {host.name}: no file {path}", f"host/{host.name}")
