"""The BMC of a simulated host: cutting its power crashes it, also when its network is cut."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.errors import CredentialRejected, Unreachable
from core.settings import DriverSettings
from core.states import MachinePower
from drivers.baremetal.base import GOALS, BareMetal, BmcEndpoint, PowerChange
from drivers.baremetal.facets import BmcEvent, BootDevice, Sensor
from drivers.baremetal.inventory import Cpu, Disk, Inventory, Nic
from drivers.fake_things import FakeHost
from drivers.fake_world import ANY, world

HOT_CELSIUS = 45.0

RAMDISK = "192.0.2.1"  # where a ramdisk of theirs would have been reached (RFC 5737)


class FakeBmc(BareMetal):
    """FakeHost.bmc_answers says whether it does."""

    def __init__(self, endpoint: BmcEndpoint) -> None:
        self._name, self._endpoint = endpoint.name, endpoint
        self._closed = False

    @asynccontextmanager
    async def _call(self, verb: str) -> AsyncIterator[FakeHost]:
        if self._closed:
            raise Unreachable(f"host {self._name}: the connection to its BMC is closed", f"host/{self._name}")
        async with world.call(self._name, 0, f"baremetal.{verb}") as host:
            if host.bmc_password and host.bmc_password != self._endpoint.secret():
                raise CredentialRejected(f"the BMC of {self._name} refused its password", f"host/{self._name}")
            yield host

    async def power(self) -> MachinePower:
        async with self._call("power") as host:
            return _power(host)

    async def set_power(self, change: PowerChange, *, timeout_s: float = 60.0) -> bool:
        async with self._call("set_power") as host:
            if change is not PowerChange.RESET and _power(host) is GOALS[change]:
                return False
            if host.powered:  # a polite one ends the same way: disks stay, memory does not
                world.crash(host.name)
            if GOALS[change] is MachinePower.ON:
                world.boot(host.name)
            return True

    async def boot_once(self, device: BootDevice) -> bool:
        """Let the next start be from a device; which one it was stands in FakeHost.boots_from."""
        async with self._call("boot_once") as host:
            changed, host.boots_from = host.boots_from != device, device.value
            return changed

    async def inspect(self, *, timeout_s: float = 1800.0) -> Inventory:
        """Tell what the simulated host has; its serial is its name by default."""
        async with self._call("inspect") as host:
            cpu = Cpu("simulated", "x86_64", host.cpus, 1, host.cpus, None, ("vmx",))
            disks = (Disk("/dev/sda", host.disk_mib * 2**20, False, serial=f"{host.name}-sda"),)
            nics = tuple(Nic(f"eth{n}", mac, 10_000, True, RAMDISK) for n, mac in enumerate(host.macs))
            serial = host.serial or host.name
            return Inventory(cpu, host.memory_mib, disks=disks, nics=nics, manufacturer="rackflow", serial=serial)

    async def sensors(self) -> tuple[Sensor, ...]:
        async with self._call("sensors") as host:
            return (
                Sensor("Intake", host.celsius, "celsius", "OK" if host.celsius < HOT_CELSIUS else "Critical"),
                Sensor("Fan 1", 4200.0, "rpm", "OK"),
            )

    async def events(self, *, limit: int = 100) -> tuple[BmcEvent, ...]:
        async with self._call("events") as host:
            found = [BmcEvent(str(n), None, "Warning", text) for n, text in enumerate(host.bmc_log, 1)]
            return tuple(reversed(found))[:limit]

    async def identify(self, on: bool) -> bool:
        async with self._call("identify") as host:
            changed, host.led = host.led is not on, on
            return changed

    async def erase(self, *, timeout_s: float = 86400.0) -> bool:
        async with self._call("erase") as host:
            host.stores.clear()
            host.erased += 1
            return True

    async def close(self) -> None:
        self._closed = True


def _power(host: FakeHost) -> MachinePower:
    return MachinePower.ON if host.powered else MachinePower.OFF


async def connect(endpoint: BmcEndpoint, settings: DriverSettings) -> FakeBmc:
    """Return the BMC's driver."""
    if settings.simulated_latency_s:
        world.slow(endpoint.name, ANY, settings.simulated_latency_s)
    return FakeBmc(endpoint)
