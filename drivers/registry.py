"""Which kinds of host there are drivers for: rackflow's own, and those that installed packages bring along.

A package brings one by the entry point `NAME = module` in the group `rackflow.drivers`. Only names are read until a
driver is used, so that one which cannot be loaded troubles nobody but its own hosts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import iscoroutinefunction
from types import ModuleType

from core.errors import HostFault, Invalid

GROUP = "rackflow.drivers"
OWN = {
    "kvm": "drivers.kvm_host", "lxd": "drivers.lxd_host", "firecracker": "drivers.firecracker_host",
    "esxi": "drivers.esxi_host", "fake": "drivers.fake_host",
}  # fmt: skip


@dataclass(frozen=True)
class Driver:
    """module: imported when it is used. package: who brings it, with its version. error: why it cannot be used."""

    name: str
    module: str
    package: str
    error: str = ""


@cache
def drivers() -> dict[str, Driver]:
    """Return all drivers by name, rackflow's own first; looked up once in a process."""
    return merged(entry_points(group=GROUP))


def merged(found: Iterable[EntryPoint]) -> dict[str, Driver]:
    """Add what entry points name to rackflow's own. What is taken stays; what two packages bring, neither has."""
    known = {name: Driver(name, module, "rackflow") for name, module in OWN.items()}
    for point in sorted(found, key=lambda one: (one.name, one.value)):
        package = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
        there = known.get(point.name)
        if there is None:
            known[point.name] = Driver(point.name, point.value, package)
        elif there.package == "rackflow":
            taken = f"{point.name} ({package})"
            known[taken] = Driver(taken, point.value, package, f"the name {point.name} is rackflow's own")
        elif (there.module, there.package) != (point.value, package):
            known[point.name] = replace(there, error=f"{there.package} and {package} both bring a driver of this name")
    return known


def load(name: str) -> ModuleType:
    """Import a driver's module. Raise Invalid (there is none of that name), HostFault (it cannot be used)."""
    driver = drivers().get(name)
    if driver is None:
        raise Invalid(f"no driver {name!r}", fix=f"one of {', '.join(drivers())}")
    if driver.error:
        raise HostFault(f"driver {name} cannot be used: {driver.error}", fix="uninstall one of the packages")
    try:
        module = import_module(driver.module)
    except Exception as error:  # it is somebody else's code: whatever it raises, the others go on
        message = f"driver {name} of {driver.package} cannot be loaded: {type(error).__name__}: {error}"
        fix = f"repair or reinstall {driver.package}"
        raise HostFault(message, evidence={"module": driver.module}, fix=fix) from error
    if not iscoroutinefunction(getattr(module, "connect", None)):
        message = f"driver {name} of {driver.package} has no `async def connect(endpoint, settings)` in {driver.module}"
        raise HostFault(message, evidence={"module": driver.module}, fix="see docs/drivers.md")
    return module


def has_own_transport(name: str) -> bool:
    """Say whether hosts of a kind are reached otherwise than by SSH: only its own driver can ask what they are."""
    return bool(name) and name in drivers() and bool(getattr(load(name), "OWN_TRANSPORT", False))
