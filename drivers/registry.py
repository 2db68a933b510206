"""Which kinds of host there are drivers for: rackflow's own, and those that installed packages bring along.

A package brings one by the entry point `NAME = module` in the group `rackflow.drivers`. Only names are read until a
driver is used, so that one which cannot be loaded troubles nobody but its own hosts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, distributions, entry_points
from inspect import iscoroutinefunction
from types import ModuleType

from core.errors import HostFault, Invalid

GROUP = "rackflow.drivers"
CONTRACT = 1  # of the contracts in */base.py; one more whenever a driver that fitted would fit no longer
OWN = {
    "kvm": "drivers.kvm_host", "lxd": "drivers.lxd_host", "firecracker": "drivers.firecracker_host",
    "esxi": "drivers.esxi_host", "fake": "drivers.fake_host",
}  # fmt: skip
_NAME = re.compile(r"[a-z][a-z0-9-]{0,15}")  # as a host's spec may name one


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
    try:
        return merged(entry_points(group=GROUP))
    except Exception:  # one package's entry_points.txt is damaged, whoever's it is: the others count
        return merged(_readable())


def _readable() -> Iterator[EntryPoint]:
    for dist in distributions():
        try:
            yield from dist.entry_points.select(group=GROUP)
        except Exception:
            continue


def merged(found: Iterable[EntryPoint]) -> dict[str, Driver]:
    """Add what entry points name to rackflow's own. What is taken stays; what two packages bring, neither has."""
    known = {name: Driver(name, module, "rackflow") for name, module in OWN.items()}
    for point in sorted(found, key=lambda one: (one.name, one.value)):
        package = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
        there = known.get(point.name)
        if there is None:
            error = "" if _NAME.fullmatch(point.name) else f"no host can name it: a driver's name is {_NAME.pattern}"
            known[point.name] = Driver(point.name, point.value, package, error)
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
        raise HostFault(f"driver {name} cannot be used: {driver.error}", fix="uninstall or rename one of the packages")
    try:
        module = import_module(driver.module)
    except (Exception, SystemExit) as error:  # it is somebody else's code: whatever it raises, the others go on
        message = f"driver {name} of {driver.package} cannot be loaded: {type(error).__name__}: {error}"
        fix = f"repair or reinstall {driver.package}"
        raise HostFault(message, evidence={"module": driver.module}, fix=fix) from error
    if misfit := "" if name in OWN else _misfit(module):
        message = f"driver {name} of {driver.package} does not fit: {misfit}"
        raise HostFault(message, evidence={"module": driver.module}, fix="install a version that does: docs/drivers.md")
    return module


def _misfit(module: ModuleType) -> str:
    """Return why a package's module cannot be a driver here, "" if it can."""
    if not iscoroutinefunction(getattr(module, "connect", None)):
        return f"no `async def connect(endpoint, settings)` is in {module.__name__}"
    written_for = getattr(module, "CONTRACT", None)
    if written_for is None:
        return f"{module.__name__} has no CONTRACT: the version of the contracts that it was written for"
    return "" if written_for == CONTRACT else f"written for contract {written_for}, and this rackflow has {CONTRACT}"


def has_own_transport(name: str) -> bool:
    """Say whether hosts of a kind are reached otherwise than by SSH: only its own driver can ask what they are."""
    return bool(name) and name in drivers() and bool(getattr(load(name), "OWN_TRANSPORT", False))
