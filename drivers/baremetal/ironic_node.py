"""One machine behind Ironic, as a BMC is spoken to: power, boot device, inspection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from core.errors import Conflict, HostFault, Invalid, RackflowError, Unsupported
from core.settings import DriverSettings
from core.states import MachinePower
from drivers.baremetal import ipa, ironic_deploy
from drivers.baremetal.base import GOALS, BareMetal, BmcEndpoint, PowerChange
from drivers.baremetal.facets import BootDevice, Deployment
from drivers.baremetal.inspector import Inspector
from drivers.baremetal.inventory import Inventory
from drivers.baremetal.ironic import Ironic, Node, NodeSpec

POWERS = {"power on": MachinePower.ON, "power off": MachinePower.OFF}
ORDERS = {
    PowerChange.ON: "power on", PowerChange.OFF: "soft power off", PowerChange.FORCE_OFF: "power off",
    PowerChange.RESET: "rebooting",
}  # fmt: skip
DEVICES = {BootDevice.DISK: "disk", BootDevice.NETWORK: "pxe", BootDevice.CDROM: "cdrom"}
NO_STEP = "does not support this clean step"
ERASE = [{"interface": "deploy", "step": "erase_devices"}]
_LOOK_EVERY_S = 0.5
_WITHDRAW_S = 30.0


class IronicNode(BareMetal):
    """inspector: who inspects; without one Ironic does itself, if the node's inspect interface is agent."""

    def __init__(self, ironic: Ironic, name: str, inspector: Inspector | None = None) -> None:
        self._ironic, self._name, self._inspector = ironic, name, inspector

    async def power(self) -> MachinePower:
        found = await self.node()
        return MachinePower.UNKNOWN if found.power_target else POWERS.get(found.power or "", MachinePower.UNKNOWN)

    async def set_power(self, change: PowerChange, *, timeout_s: float = 60.0) -> bool:
        before = await self.node()
        steady = before.power_target is None
        if change is not PowerChange.RESET and steady and POWERS.get(before.power or "") is GOALS[change]:
            return False
        await self._ironic.call(
            f"{ORDERS[change]} of {self._name}",
            lambda client: client.set_node_power_state(self._name, ORDERS[change]),
        )
        await self._until(change, timeout_s)
        return True

    async def _until(self, change: PowerChange, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        found = await self.node()
        while found.power_target is not None and time.monotonic() < end:
            await asyncio.sleep(_LOOK_EVERY_S)
            found = await self.node()
        if found.power_target is not None or POWERS.get(found.power or "") is not GOALS[change]:
            raise HostFault(
                f"Ironic took the order {change!s} for {self._name}, and after at most {timeout_s:g} s the machine is "
                f"{found.power}: {found.last_error}", f"host/{self._name}",
                {"wanted": change.value, "seen": found.power, "last_error": found.last_error}, "look at the machine",
            )  # fmt: skip

    async def boot_once(self, device: BootDevice) -> bool:
        try:
            await self._ironic.call(
                f"letting {self._name} boot from {device}",
                lambda client: client.set_node_boot_device(self._name, DEVICES[device], persistent=False),
            )
        except Invalid as error:
            raise Unsupported(error.message, f"host/{self._name}", error.evidence) from error
        return True

    async def inspect(self, *, timeout_s: float = 1800.0) -> Inventory:
        if self._inspector is not None:
            return await self._inspector.inspect(self._name, timeout_s=timeout_s, power=self)
        before = await self.node()
        if before.provision not in ("manageable", "inspect failed"):
            raise Conflict(
                f"{self._name} is {before.provision}: it can be inspected when it is manageable",
                f"host/{self._name}", {"state": before.provision},
            )  # fmt: skip
        await self._ironic.call(
            f"inspecting {self._name}", lambda client: client.set_node_provision_state(self._name, "inspect")
        )
        try:
            await self._ironic.reached(self._name, "manageable", timeout_s=timeout_s)
        except BaseException:
            await asyncio.shield(self._withdraw())
            raise
        data = await self._ironic.call(
            f"reading the inventory of {self._name}", lambda client: client.get_node_inventory(self._name)
        )
        return ipa.parse({**data["plugin_data"], "inventory": data["inventory"]}, f"host/{self._name}")

    async def _withdraw(self) -> None:
        """End an inspection that waits for its ramdisk; Ironic powers the machine off."""
        with suppress(RackflowError, TimeoutError):
            async with asyncio.timeout(_WITHDRAW_S):
                found = await self.node()
                while found.provision == "inspecting":
                    await asyncio.sleep(_LOOK_EVERY_S)
                    found = await self.node()
                if found.provision == "inspect wait":
                    await self._ironic.call(
                        f"aborting the inspection of {self._name}",
                        lambda client: client.set_node_provision_state(self._name, "abort"),
                    )

    async def erase(self, *, timeout_s: float = 86400.0) -> bool:
        """Let Ironic clean it: by the disks' own erasure where they have one, else by overwriting."""
        before = await self.node()
        if before.provision not in ("manageable", "clean failed"):
            raise Conflict(
                f"{self._name} is {before.provision}: it can be erased when it is manageable", f"host/{self._name}",
                {"state": before.provision}, "take it out of use in Ironic first",
            )  # fmt: skip
        await self._ironic.call(
            f"erasing {self._name}",
            lambda client: client.set_node_provision_state(self._name, "clean", clean_steps=ERASE),
        )
        try:
            await self._ironic.reached(self._name, "manageable", timeout_s=timeout_s)
        except HostFault as error:
            await self._ironic.call(f"taking {self._name} back", self._take_back)
            if NO_STEP in error.message:
                raise Unsupported(
                    f"Ironic has no way to erase {self._name}: {error.evidence['last_error']}", f"host/{self._name}",
                    error.evidence, "give the node a deploy interface of the agent (direct), or erase it from within",
                ) from error  # fmt: skip
            raise
        return True

    def _take_back(self, client: Any) -> None:
        """Let a node whose cleaning failed be manageable again: Ironic puts it into maintenance."""
        if client.get_node(self._name).provision_state == "clean failed":
            client.set_node_provision_state(self._name, "manage")
            client.unset_node_maintenance(self._name)

    async def deploy(self, want: Deployment, *, timeout_s: float = 7200.0) -> bool:
        await ironic_deploy.deploy(self._ironic, self._name, want, timeout_s)
        return True

    async def take_back(self, *, timeout_s: float = 600.0) -> bool:
        return await ironic_deploy.take_back(self._ironic, self._name, timeout_s)

    async def register(self, driver: str, behind: BmcEndpoint, macs: Sequence[str]) -> bool:
        inspects = "no-inspect" if self._inspector is not None else "agent"
        spec = NodeSpec(self._name, driver, driver_info(driver, behind), list(macs), inspects)
        return await self._ironic.enroll(spec)

    async def node(self) -> Node:
        """Return what Ironic says of it."""
        return await self._ironic.node(self._name)

    async def close(self) -> None:
        await self._ironic.close()
        if self._inspector is not None:
            await self._inspector.close()


def driver_info(driver: str, behind: BmcEndpoint) -> dict[str, str]:
    """Return how Ironic's drivers are told of a BMC (their documentation's words)."""
    words = {"address": behind.address, "username": behind.user, "password": behind.secret()}
    if driver == "redfish":
        words |= {"system_id": behind.system_id, "verify_ca": str(behind.verify_tls)}
    return {f"{driver}_{key}": value for key, value in words.items() if value} if driver != "fake-hardware" else {}


async def connect(endpoint: BmcEndpoint, settings: DriverSettings) -> IronicNode:
    """Return the driver of the node that the endpoint's system_id names, by default one of the host's name."""
    address = endpoint.address.removeprefix("ironic+")
    service = BmcEndpoint(
        endpoint.name, address, endpoint.user, endpoint.password_file, endpoint.password, endpoint.verify_tls
    )
    inspector = Inspector(replace(service, address=endpoint.inspector), settings) if endpoint.inspector else None
    return IronicNode(Ironic(service, settings), endpoint.system_id or endpoint.name, inspector)
