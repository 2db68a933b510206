"""Who writes a machine's disk, and what must be said for that."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from blueprints.machine import MachineSpec

RAMDISK = {
    "image": "/images/x.raw.zst", "sha256": "0" * 64, "address": "10.0.0.5/24", "ramdisk_key": "ssh-ed25519 AAAA"
}  # fmt: skip
IRONIC = {
    "by": "ironic", "image": "http://images/x.qcow2", "sha256": "0" * 64, "address": "10.0.0.5/24", "overwrite": True
}  # fmt: skip
BMC = "ironic+http://10.0.0.2:6385"


def machine(install: dict[str, Any], bmc: str = BMC) -> MachineSpec:
    return MachineSpec.model_validate({"name": "m1", "bmc": bmc, "install": install, "host": {}})


def test_the_ramdisk_unless_something_else_is_said() -> None:
    found = machine(RAMDISK, "https://10.0.0.1")
    assert found.install is not None
    assert found.install.by == "ramdisk"
    assert machine(IRONIC)


@pytest.mark.parametrize(
    ("install", "bmc", "told"),
    [
        ({**RAMDISK, "ramdisk_key": ""}, BMC, "ramdisk_key is missing"),
        ({**IRONIC, "overwrite": False}, BMC, "say overwrite: true"),
        ({**IRONIC, "image": "/images/x.qcow2"}, BMC, "http"),
        ({**IRONIC, "image": "http://images/x.raw.zst"}, BMC, "not packed"),
        (IRONIC, "https://10.0.0.1", "for machines behind Ironic"),
    ],
)
def test_what_is_missing_is_told(install: dict[str, Any], bmc: str, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        machine(install, bmc)
