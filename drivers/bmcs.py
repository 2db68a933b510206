"""The table: a BMC's address -> its driver. Loaded lazily, as in hosts.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module

from core.errors import Invalid
from core.settings import DriverSettings
from drivers.baremetal.base import BareMetal, BmcEndpoint

Builder = Callable[[BmcEndpoint, DriverSettings], Awaitable[BareMetal]]
MODULES = {
    "http": "drivers.baremetal.redfish", "https": "drivers.baremetal.redfish", "fake": "drivers.baremetal.fake",
    "ironic+http": "drivers.baremetal.ironic_node", "ironic+https": "drivers.baremetal.ironic_node",
    "ipmi": "drivers.baremetal.ipmi",
}  # by the address's scheme  # fmt: skip


async def connect(endpoint: BmcEndpoint, settings: DriverSettings) -> BareMetal:
    """Return the driver of a BMC; it connects with the first verb. Raise Invalid (address)."""
    module = MODULES.get(endpoint.address.partition("://")[0])
    if module is None:
        raise Invalid(
            f"{endpoint.address!r} is not the address of a BMC", f"host/{endpoint.name}",
            fix="write for example https://10.0.0.1",
        )  # fmt: skip
    build: Builder = import_module(module).connect
    return await build(endpoint, settings)
