"""From spec to LXD's JSON, against golden files; and back, from JSON that LXD 5.0.2 sent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.states import InstanceKind, PowerState
from drivers.hypervisor.base import DiskAttachment, InstanceSpec, NicAttachment
from drivers.hypervisor.lxd_config import (
    changed_config,
    container_config,
    custom_volumes,
    half_made,
    observed,
    our_id,
    volumes_of,
)

GOLDEN = Path(__file__).parent / "golden" / "lxd"
ID = "06h0fcthfjpk5z6bvy94"
ROOT = DiskAttachment("root", "pool", "default", "raw", image_fingerprint="4e85cc4e" * 8)
NIC = NicAttachment("eth0", "52:54:00:01:02:03", "lxcbr0", address="10.0.0.7/24", gateway="10.0.0.1")
PLAIN = InstanceSpec(ID, f"rf-{ID}", "web", InstanceKind.CONTAINER, 2, 512, (ROOT,), (NIC,))
FULL = replace(
    PLAIN,
    cpu=1.5,
    disks=(replace(ROOT, size_mib=1024), DiskAttachment("data1", "pool", "fast", "raw", 64)),
    nics=(replace(NIC, bridge="br0", nameservers=("10.0.0.2",)), replace(NIC, name="eth1", mac="52:54:00:01:02:04")),
    user_data="#cloud-config\npackages: [nginx]\n",
    ssh_keys=("ssh-ed25519 AAAA me",),
    labels=(("tier", "front"),),
    options=(("security.nesting", "true"),),
)
DHCP = replace(PLAIN, nics=(replace(NIC, bridge="br0", address="", gateway=""),))
CASES = {
    "plain": PLAIN, "full": FULL, "dhcp": DHCP, "whole-cores": replace(PLAIN, pinned=(2, 3, 6)),
    "off-the-cores-of-others": replace(PLAIN, may_use=(0, 1, 4, 5)),
    "of-one-cell": replace(PLAIN, may_use=(4, 5), cell=1),
}  # fmt: skip


def golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text())


@pytest.mark.parametrize("name", CASES)
def test_container_config(name: str) -> None:
    assert container_config(CASES[name], {"lxcbr0"}) == golden(name)


def test_every_value_is_text_as_lxd_wants_it() -> None:
    body = container_config(FULL)
    values = [*body["config"].values(), *(v for device in body["devices"].values() for v in device.values())]
    assert {type(value) for value in values} == {str}
    assert "" not in values


@pytest.mark.parametrize(("cpu", "key", "value"), [
    (1, "limits.cpu", "1"), (4.0, "limits.cpu", "4"), (0.5, "limits.cpu.allowance", "50ms/100ms"),
    (2.25, "limits.cpu.allowance", "225ms/100ms"), (0.001, "limits.cpu.allowance", "1ms/100ms"),
])  # fmt: skip
def test_cpu_limits_there_and_back(cpu: float, key: str, value: str) -> None:
    config = container_config(replace(PLAIN, cpu=cpu))["config"]
    assert config[key] == value
    assert observed(found(config=config)).cpus == pytest.approx(cpu, abs=0.01)


def test_further_disks_are_custom_volumes_of_the_instance() -> None:
    volumes = [("fast", {"name": f"rf-{ID}-data1", "content_type": "filesystem",
                         "config": {"size": "64MiB", "user.rackflow.id": ID}})]  # fmt: skip
    assert custom_volumes(FULL) == volumes
    pools: list[dict[str, Any]] = [
        {"name": "default", "used_by": ["/1.0/instances/x", f"/1.0/storage-pools/default/volumes/custom/rf-{ID}-a"]},
        {"name": "fast", "used_by": [f"/1.0/storage-pools/fast/volumes/custom/rf-{ID}-data1?target=none",
                                     "/1.0/storage-pools/fast/volumes/custom/rf-other-data1"]},
        {"name": "none", "used_by": None},
    ]  # fmt: skip
    assert volumes_of(f"rf-{ID}", pools) == [("default", f"rf-{ID}-a"), ("fast", f"rf-{ID}-data1")]


def found(**changes: Any) -> dict[str, Any]:
    """Return what LXD tells of an instance of ours."""
    body = container_config(PLAIN, {"lxcbr0"})
    plain = {
        "name": body["name"], "type": "container", "status": "Stopped", "architecture": "x86_64", "ephemeral": False,
        "profiles": [], "config": body["config"], "devices": body["devices"], "last_used_at": "1970-01-01T00:00:00Z",
    }  # fmt: skip
    return plain | changes


def test_nothing_to_change() -> None:
    theirs = {"volatile.uuid": "x", "image.os": "busybox", "security.nesting": "true"}
    there = found(config={**found()["config"], **theirs})
    assert changed_config(there, container_config(PLAIN, {"lxcbr0"})) is None


def test_only_our_keys_change() -> None:
    there = found(config={**found()["config"], "volatile.uuid": "x", "limits.cpu.allowance": "5ms/100ms"})
    body = changed_config(there, container_config(replace(PLAIN, memory_mib=1024), {"lxcbr0"}))
    assert body is not None
    assert body["config"] == {**found()["config"], "volatile.uuid": "x", "limits.memory": "1024MiB"}
    assert body["devices"] == there["devices"]
    assert body["profiles"] == []


def test_options_are_compared_too() -> None:
    wanted = container_config(replace(PLAIN, options=(("security.nesting", "true"),)), {"lxcbr0"})
    body = changed_config(found(), wanted)
    assert body is not None
    assert changed_config(found(config=body["config"]), wanted) is None


def test_a_changed_address_changes_the_device() -> None:
    moved = replace(PLAIN, nics=(replace(NIC, address="10.0.0.8/24"),))
    body = changed_config(found(), container_config(moved, {"lxcbr0"}))
    assert body is not None
    assert body["devices"]["eth0"]["ipv4.address"] == "10.0.0.8"


def test_observed_running() -> None:
    seen = observed(golden("running"))
    assert (seen.name, seen.power, seen.kind, seen.instance_id) == (
        "g1", PowerState.RUNNING, InstanceKind.CONTAINER, ID,
    )  # fmt: skip
    assert (seen.cpus, seen.memory_mib, seen.memory_used_mib) == (0.5, 64, 1)
    assert seen.cpu_seconds == pytest.approx(0.044919393)
    assert seen.addresses == ("198.18.23.167",)
    assert seen.disks == ("default/g1",)


@pytest.mark.parametrize(("status", "power"), [
    ("Running", PowerState.RUNNING), ("Stopped", PowerState.STOPPED), ("Frozen", PowerState.PAUSED),
    ("Error", PowerState.CRASHED), ("Starting", PowerState.UNKNOWN), ("Something new", PowerState.UNKNOWN),
])  # fmt: skip
def test_observed_states(status: str, power: PowerState) -> None:
    seen = observed(found(status=status))
    assert seen.power is power
    assert (seen.cpu_seconds, seen.memory_used_mib, seen.addresses) == (None, None, ())
    assert bool(seen.reason) is (power is PowerState.CRASHED)


def test_observed_foreign() -> None:
    seen = observed(found(config={"limits.cpu": "0,2-3", "limits.memory": "50%"}, type="virtual-machine"))
    assert (seen.kind, seen.instance_id, seen.cpus, seen.memory_mib) == (InstanceKind.VM, None, 3, 0)
    assert observed(found(config={})).cpus == 0


@pytest.mark.parametrize(("config", "last_used_at", "expected"), [
    ({}, "1970-01-01T00:00:00Z", True),
    ({"volatile.apply_template": "create"}, "1970-01-01T00:00:00Z", False),  # made, never started
    ({"volatile.last_state.power": "RUNNING"}, "2026-11-23T09:24:05Z", False),
    ({}, "2026-11-23T09:24:05Z", False),
])  # fmt: skip
def test_half_made(config: dict[str, str], last_used_at: str, expected: bool) -> None:
    assert half_made(found(config=config, last_used_at=last_used_at)) is expected


def marked(name: str, **config: str) -> dict[str, Any]:
    return {"name": name, "config": {f"user.rackflow.{key}": value for key, value in config.items()}}


@pytest.mark.parametrize(("found", "mine"), [
    (marked(f"rf-{ID}", id=ID), ID),
    (marked("web", id=ID, adopted="web"), ID),
    (marked("web-copy", id=ID, adopted="web"), None),  # somebody copied it, with our marks
    (marked("web", id=ID), None),
    (marked(f"rf-{ID}"), None),
    (marked("web"), None),
])  # fmt: skip
def test_whose_it_is(found: dict[str, Any], mine: str | None) -> None:
    assert our_id(found) == mine


def test_marks_stay_when_a_spec_is_applied() -> None:
    wanted = container_config(PLAIN)
    marks = {"user.rackflow.adopted": "web", "user.rackflow.parcel": "0" * 64}
    found = {"config": {**wanted["config"], **marks}, "devices": wanted["devices"]}
    assert changed_config(found, wanted) is None
    body = changed_config({**found, "devices": {}}, wanted)
    assert body is not None
    assert body["config"] == {**wanted["config"], **marks}


@pytest.mark.parametrize("mark", ["adopted", "parcel"])
def test_one_that_was_adopted_or_imported_is_never_made_anew(mark: str) -> None:
    found = {**marked("web", **{mark: "x"}), "last_used_at": "1970-01-01T00:00:00Z"}
    assert half_made(found) is False
    assert half_made({**found, "config": {}}) is True


def test_a_single_core_by_number_is_a_span() -> None:
    """LXD takes "3" as three cores, whichever they are."""
    assert container_config(replace(PLAIN, cpu=1, pinned=(3,)))["config"]["limits.cpu"] == "3-3"
