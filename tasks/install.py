"""An operating system for a machine: its ramdisk writes the disk, then it starts from there and is known by its key."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from control import commission, machines, operations
from control.machines import MachineRecord
from control.operations import Operation
from core.errors import CredentialRejected, HostFault, NotFound, Unreachable, Unsupported
from core.states import StepState
from drivers.baremetal import install
from drivers.baremetal.base import PowerChange
from drivers.baremetal.config_drive import config_drive
from drivers.baremetal.facets import BootDevice, BootsOnce, Deployment, Deploys
from drivers.baremetal.first_boot import FirstBoot, make_host_key, public_half
from drivers.baremetal.inventory import Disk
from drivers.identity import show
from drivers.transport.base import Endpoint, Transport
from drivers.transport.ssh import connect
from tasks.ledger import Seen
from tasks.machine_power import POWER_S, bmc_of
from tasks.runtime import Runtime

INSTALL_S = 2 * 3600.0
WITHDRAW_S = 600.0  # that Ironic gets to take back what it did not end in time
BOOT_S = 900.0  # a server's firmware alone may take five minutes
RAMDISK_S = 600.0
LOOK_S = 1.0


class Installation:
    """The steps for one machine that is to get an operating system. sequence: of the step that writes the disk."""

    def __init__(self, rt: Runtime, op: Operation, record: MachineRecord, sequence: int) -> None:
        self.rt, self.op, self.record, self.sequence = rt, op, record, sequence
        self.want: dict[str, Any] = record.spec["install"]
        self.host: dict[str, Any] = record.spec["host"]
        self.subject = f"machine/{record.name}"

    @property
    def by_ironic(self) -> bool:
        return bool(self.want.get("by") == "ironic")

    async def ramdisk(self, _: Operation) -> Seen:
        """Start its ramdisk from the network, and settle which disk is written: an empty one, or one that may be lost.

        What a later try of this operation finds on that disk is its own, half written.
        """
        inventory = await self.rt.store.read(lambda c: machines.last_inventory(c, self.record.id)) or {}
        disk = install.choose_disk([Disk(**one) for one in inventory["disks"]], self.want["disk"], self.subject)
        nic = self._nic(inventory)
        t = await self._in_ramdisk(nic["address"])
        try:
            found = await install.contents(t, disk)
        finally:
            await t.close()
        if found and not self.want["overwrite"]:
            raise HostFault(
                f"the disk {disk.name} {disk.serial} of {self.record.name} is not empty ({found})", self.subject,
                {"disk": disk.name, "serial": disk.serial, "found": found},
                "erase it, or allow it to be overwritten (install: overwrite: true)",
            )  # fmt: skip
        return Seen(True, {"disk": asdict(disk), "found": found, "address": nic["address"], "mac": nic["mac"]})

    async def install(self, _: Operation) -> Seen:
        """Let its ramdisk write the disk; it is off afterwards. Whatever ends this early, the disk does not boot."""
        if self.by_ironic:
            return await self._deploy()
        began = time.monotonic()
        settled = await evidence(self.rt, self.op, "ramdisk")
        disk, key = Disk(**settled["disk"]), make_host_key()
        told = {"disk": disk.name, "serial": disk.serial, "image": self.want["image"]}
        t = await self._in_ramdisk(settled["address"])
        try:
            source = install.ImageSource(self.want["image"], self.want["sha256"])
            await install.write(t, disk, source, lambda mib: self._note({**told, "written_mib": mib}))
            await install.give(t, disk, self._first_boot(settled["mac"]), key)
        finally:
            await t.close()
        await self._off()
        told |= {"host_key": key.public, "fingerprint": key.fingerprint}
        return Seen(True, {**told, "took_s": round(time.monotonic() - began, 1)})

    async def _deploy(self) -> Seen:
        """Let Ironic write the disk, and start it."""
        began = time.monotonic()
        inventory = await self.rt.store.read(lambda c: machines.last_inventory(c, self.record.id)) or {}
        disk = install.choose_disk([Disk(**one) for one in inventory["disks"]], self.want["disk"], self.subject)
        key, first = make_host_key(), self._first_boot(self._nic(inventory)["mac"])
        drive = config_drive(first, key, self.op.id)
        bmc = await bmc_of(self.rt, self.record)
        try:
            if not isinstance(bmc, Deploys):
                raise Unsupported(f"what stands before {self.record.name} writes no disks", self.subject)
            want = Deployment(self.want["image"], self.want["sha256"], disk, drive)
            await bmc.deploy(want, timeout_s=INSTALL_S - WITHDRAW_S)
        finally:
            await bmc.close()
        told = {"disk": disk.name, "serial": disk.serial, "image": self.want["image"], "host_key": key.public}
        return Seen(True, {**told, "fingerprint": key.fingerprint, "took_s": round(time.monotonic() - began, 1)})

    async def boot(self, _: Operation) -> Seen:
        """Start it from its disk, and wait until it answers with the key that it was given."""
        endpoint = await endpoint_of(self.rt, self.op, self.record)
        if not self.by_ironic:  # which started it already
            await self._start_from(BootDevice.DISK)
        t = await self._answers(endpoint, BOOT_S, "look at its console: does it start from the disk that was written?")
        try:
            up = (await t.run(["cat", "/proc/uptime"])).stdout.split()[0]
        finally:
            await t.close()
        return Seen(True, {"address": endpoint.address, "uptime_s": float(up)})

    def _nic(self, inventory: dict[str, Any]) -> dict[str, Any]:
        """Return the card by which its ramdisk was reached while it was inspected. Raise HostFault."""
        found = [nic for nic in inventory.get("nics") or () if nic["address"] and nic["mac"]]
        if found:
            return dict(found[0])
        raise HostFault(
            f"the inspection of {self.record.name} told no address of a network card", self.subject, {},
            "it must be inspected by a ramdisk that it boots from the network: enroll it behind Ironic",
        )  # fmt: skip

    async def _in_ramdisk(self, address: str) -> Transport:
        """Return a connection to its ramdisk; it is started unless it answers already."""
        endpoint = Endpoint(
            self.record.name, address, 22, "root", self._key_file, self.want["ramdisk_key"]
        )
        try:
            return await connect(endpoint, self.rt.settings.drivers)
        except (Unreachable, CredentialRejected):  # off, or something else runs there
            await self._start_from(BootDevice.NETWORK)
        return await self._answers(endpoint, RAMDISK_S, "look at its console: does it boot the ramdisk?")

    async def _answers(self, endpoint: Endpoint, limit_s: float, fix: str) -> Transport:
        end = time.monotonic() + limit_s
        while True:
            try:
                return await connect(endpoint, self.rt.settings.drivers)
            except Unreachable as error:
                if time.monotonic() > end:
                    raise HostFault(
                        f"{self.record.name} was started, and did not answer at {endpoint.address} in {limit_s:.0f} s: "
                        f"{error}", self.subject, {"address": endpoint.address}, fix,
                    ) from error  # fmt: skip
            await asyncio.sleep(LOOK_S)

    async def _off(self) -> None:
        bmc = await bmc_of(self.rt, self.record)
        try:
            await bmc.set_power(PowerChange.FORCE_OFF, timeout_s=POWER_S)
        finally:
            await bmc.close()

    async def _start_from(self, device: BootDevice) -> None:
        """Cut its power and start it; an order to reset would leave some BMCs with the boot device of before."""
        bmc = await bmc_of(self.rt, self.record)
        try:
            if not isinstance(bmc, BootsOnce):
                raise Unsupported(
                    f"the BMC of {self.record.name} cannot choose what it boots from", self.subject, {},
                    "install it by hand, then enroll it with host: address and fingerprint",
                )  # fmt: skip
            await bmc.set_power(PowerChange.FORCE_OFF, timeout_s=POWER_S)
            await bmc.boot_once(device)
            await bmc.set_power(PowerChange.ON, timeout_s=POWER_S)
        finally:
            await bmc.close()

    async def _note(self, told: dict[str, Any]) -> None:
        await self.rt.store.write(lambda c: operations.note_step(c, self.op, self.sequence, told))

    @property
    def _key_file(self) -> Path:
        return Path(self.host["key_file"]) if self.host["key_file"] else self.rt.settings.paths.ssh_key

    def _first_boot(self, mac: str) -> FirstBoot:
        want = self.want
        return FirstBoot(
            self.record.name, mac, want["address"], public_half(self._key_file.read_text()), want["gateway"],
            tuple(want["nameservers"]),
        )  # fmt: skip


async def endpoint_of(rt: Runtime, op: Operation, record: MachineRecord) -> Endpoint:
    """Return how a machine's operating system is reached. Raise CredentialRejected (it shows another host key)."""
    host, want = record.spec["host"], record.spec["install"]
    key_file = Path(host["key_file"]) if host["key_file"] else rt.settings.paths.ssh_key
    if want is None:
        shown = await show("", host["address"], host["port"])
        commission.require_fingerprint(record.name, host["address"], shown.fingerprint, host["fingerprint"])
        return Endpoint(record.name, host["address"], host["port"], host["user"], key_file, shown.public)
    key = (await evidence(rt, op, "install"))["host_key"]
    return Endpoint(record.name, want["address"].partition("/")[0], 22, "root", key_file, key)


async def evidence(rt: Runtime, op: Operation, name: str) -> dict[str, Any]:
    """Return what a step of this operation saw as it ended well. Raise NotFound."""
    steps = (await rt.store.read(lambda c: operations.steps_of(c, [op.id])))[op.id]
    told = [step.evidence or {} for step in steps if step.name == name and step.state is StepState.DONE]
    if told:
        return told[-1]
    raise NotFound(f"step {name} of {op.subject_name} has not ended", op.subject)
