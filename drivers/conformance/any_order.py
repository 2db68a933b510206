"""The case of each family that tries all verbs in any order with faults between; it needs Hypothesis."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from drivers.conformance import hypervisor, network, storage
from drivers.conformance.cases import Suite, not_reached
from drivers.conformance.rigs import HypervisorRig, NetworkRig, StorageRig

LIVES: Suite[HypervisorRig] = Suite("hypervisor", hypervisor.VERBS)
DISKS: Suite[StorageRig] = Suite("storage", storage.CASES.verbs)
BRIDGES: Suite[NetworkRig] = Suite("network", network.CASES.verbs)
MISSING = "Hypothesis is not installed: pip install 'rackflow[conformance]'"


async def explored(family: str, machine: str, rig: Any) -> None:
    """Explore with a family's machine; end the case where Hypothesis is missing."""
    try:
        explore: Any = import_module("drivers.conformance.explore")
    except ModuleNotFoundError as error:
        if error.name != "hypothesis":
            raise
        not_reached(MISSING)
    made = getattr(import_module(f"drivers.conformance.machine_{family}"), machine)
    await explore.explore(lambda do: made(do, rig), rig.effort)


@LIVES.case(
    "define", "start", "stop", "undefine", "observe", "instances", "suspend", "reboot", "snapshot"
)
async def all_verbs_in_any_order_with_faults(rig: HypervisorRig) -> None:
    await explored("hypervisor", "HypervisorMachine", rig)


@DISKS.case(
    "ensure_image", "delete_image", "images", "ensure_volume", "delete_volume", "delete_volumes", "volumes",
    "capacity",
)  # fmt: skip
async def all_disks_in_any_order_with_faults(rig: StorageRig) -> None:
    await explored("storage", "StorageMachine", rig)


@BRIDGES.case("ensure", "ensure_nic", "bridges")
async def all_networks_in_any_order_with_faults(rig: NetworkRig) -> None:
    network.can_clear(rig)
    await explored("network", "NetworkMachine", rig)
