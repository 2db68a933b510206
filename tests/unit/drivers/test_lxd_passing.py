"""Copies, snapshots and archives of containers as LXD's JSON, with devices and times as LXD 5.0.2 sent them."""

from __future__ import annotations

from typing import Any

import pytest

from core.ids import new_id, on_host
from drivers.hypervisor.lxd_config import ADOPTED_KEY, ID_KEY, PARCEL_KEY
from drivers.hypervisor.lxd_passing import (
    IMPORTS,
    SNAPSHOT_PART,
    archive_key,
    bound_snapshots,
    copy_of,
    further_disks,
    is_passing,
    kept_config,
    passing_name,
    root_pool,
    snapshots_seen,
)

ID = "06h0fcthfjpk5z6bvy94"
ROOT = {"type": "disk", "path": "/", "pool": "default"}
DATA = {"type": "disk", "path": "/mnt/data1", "pool": "fast", "source": f"rf-{ID}-data1"}
NIC = {"type": "nic", "network": "lxcbr0", "name": "eth0", "ipv4.address": "10.0.0.7"}
FREE_NIC = {"type": "nic", "nictype": "bridged", "parent": "br0", "name": "eth0"}


def container(**devices: dict[str, str]) -> dict[str, Any]:
    return {
        "name": f"rf-{ID}", "config": {ID_KEY: ID, "limits.memory": "64MiB", "volatile.uuid": "1"},
        "devices": devices, "expanded_devices": {"root": ROOT, **devices},
        "last_used_at": "2026-11-25T22:58:29.626908489Z",
    }  # fmt: skip


def snapshot(name: str, second: int = 0, **devices: dict[str, str]) -> dict[str, Any]:
    created = f"2026-11-25T22:59:{second:02}.138967425Z"
    return {"name": name, "created_at": created, "stateful": False, "expanded_devices": {"root": ROOT, **devices}}


def test_names_that_pass_are_known_and_no_others() -> None:
    instance_id = new_id()
    for purpose in ("copy", *IMPORTS):
        assert is_passing(passing_name(instance_id, purpose))
    for name in (on_host(instance_id), "web-copy", f"{on_host(instance_id)}-data1", f"{on_host(instance_id)}-copy-2"):
        assert not is_passing(name)


def test_a_copy_has_the_root_disk_only_and_is_nobodys() -> None:
    found = copy_of(container(eth0=NIC, data1=DATA), "x-copy", snapshots=False)
    assert found["devices"] == {"root": ROOT, "eth0": {"type": "none"}, "data1": {"type": "none"}}
    assert found["config"] == {ID_KEY: "", PARCEL_KEY: ""}, "the name of an adopted one has to stay"
    assert ADOPTED_KEY not in found["config"]
    assert (found["profiles"], found["source"]["instance_only"]) == ([], True)
    assert copy_of(container(), "x-copy", snapshots=True)["source"]["instance_only"] is False


def test_disks() -> None:
    assert further_disks(container(eth0=NIC, data1=DATA)) == ["data1"]
    assert further_disks(container()) == []
    assert root_pool(container(data1=DATA)) == "default"


@pytest.mark.parametrize("change", [
    {"last_used_at": "2026-11-25T22:58:30Z"}, {"config": {ID_KEY: ID}}, {"devices": {"eth0": NIC}},
])  # fmt: skip
def test_an_archive_is_stale_after_any_change(change: dict[str, Any]) -> None:
    found, snapshots = container(), [snapshot("s1")]
    key = archive_key(found, snapshots)
    assert archive_key(dict(found), list(snapshots)) == key
    assert archive_key({**found, **change}, snapshots) != key
    assert archive_key(found, []) != key
    assert archive_key(found, [snapshot("s1", 1)]) != key


def test_snapshots_with_fixed_addresses_are_bound_to_their_host() -> None:
    found = [snapshot("web/s1", eth0=NIC), snapshot("s2", eth0=FREE_NIC), snapshot("s3")]
    assert bound_snapshots(found) == ["s1"]


def test_snapshots_come_in_order_and_only_whole_ones() -> None:
    found = snapshots_seen([snapshot("b", 2), snapshot(SNAPSHOT_PART, 3), snapshot("web/a", 1)])
    assert [one.name for one in found] == ["a", "b"]
    assert [one.memory for one in found] == [False, False]


def test_a_revert_keeps_what_we_have_set_and_what_lxd_has_noted() -> None:
    before = {"config": {"limits.memory": "128MiB", "user.rackflow.name": "new", "volatile.uuid": "1"}}
    after = {"config": {"limits.memory": "64MiB", "limits.cpu": "1", "volatile.uuid": "2"}}
    assert kept_config(before, after) == {
        "limits.memory": "128MiB", "user.rackflow.name": "new", "volatile.uuid": "2",
    }  # fmt: skip
