"""Hosts that die or are cut off: their power is cut for certain before anything of theirs starts elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.cloud import Cloud
from core.ids import on_host
from tests.labs import Lab
from tests.live.guests import (
    WORD,
    Guest,
    host_is,
    never_two,
    only,
    reconcile,
    restarted,
    runs_on,
    until,
    vm_on,
)

SHARED = "/srv/shared/rackflow"
FAST = {"worker__host_silent_s": "8", "reconcile_every_s": "10"}


@pytest.fixture(scope="module")
def cloud(front_end: Cloud, lab: Lab) -> Iterator[Cloud]:
    """The front-end, quick to find a host dead, with a datastore that all hosts share."""
    with restarted(front_end, **FAST):
        front_end.rackflow("datastore", "create", "shared", "--path", SHARED, "--shared")
        reconcile(front_end)
        yield front_end
        for host in ("h1", "h2"):
            lab.call("start", host)
            front_end.run("host", "enable", host)
            host_is(front_end, host, "ready")
        front_end.rackflow("datastore", "delete", "shared")
        lab.run("h1", f"rm -rf {SHARED}")


@pytest.fixture(scope="module")
def vm(cloud: Cloud) -> Iterator[Guest]:
    with vm_on(cloud, "fail-vm", "h1", "shared") as guest:
        yield guest


def moved_to(vm: Guest, host: str) -> None:
    until(lambda: (shown := vm.show())["host"] == host and shown["state"] == "running", 120)


def back(cloud: Cloud, lab: Lab, host: str, vm: Guest) -> None:
    """Put a fenced host on again; when it takes anything, nothing of the VM is left on it."""
    lab.call("start", host)
    reconcile(cloud)
    assert cloud.show("host", host)["state"] == "fenced"  # until somebody says that it is well
    cloud.rackflow("host", "enable", host)
    host_is(cloud, host, "ready")
    assert on_host(vm.show()["id"]) not in lab.run(host, "virsh list --all --name")
    assert vm.read() == WORD


@pytest.mark.slow
def test_a_live_migration_on_a_shared_datastore_and_back(vm: Guest) -> None:
    boot = vm.boot_id()
    for host in ("h2", "h1"):
        assert vm.do("migrate", live=True)["host"] == host
    assert (vm.read(), vm.boot_id(), runs_on(vm)) == (WORD, boot, ["h1"])


@pytest.mark.slow  # 142 s; BMCs in test_bmc.py, failing over on simulated hosts in tests/integration
def test_a_host_that_loses_its_power(vm: Guest, cloud: Cloud, lab: Lab) -> None:
    with vm_on(cloud, "fail-local", "h1") as local, never_two(vm):
        lab.call("crash", "h1")
        fenced = host_is(cloud, "h1", "fenced")
        assert "power is off" in fenced["error"]["message"]
        moved_to(vm, "h2")
        assert (vm.read(), runs_on(vm)) == (WORD, ["h2"])
        assert [row["state"] for row in lab.status() if row["name"] == "h1"] == ["down"]
        held = local.show()
        assert (held["state"], held["host"]) == ("held", "h1")
        assert "its disks are on h1, which is fenced" in held["reason"]
        back(cloud, lab, "h1", vm)
        until(lambda: local.show()["state"] == "running", 90)
        assert (local.read(), runs_on(local)) == (WORD, ["h1"])


@pytest.mark.slow
def test_a_host_that_is_cut_off_loses_its_power_first(vm: Guest, cloud: Cloud, lab: Lab) -> None:
    vm.do("migrate", live=True)
    assert runs_on(vm) == ["h1"]
    with never_two(vm) as counts:
        lab.call("cut", "h1")
        moved_to(vm, "h2")
        assert vm.read() == WORD
    assert 0 in counts[1:]  # for a moment it ran nowhere
    assert [row["state"] for row in lab.status() if row["name"] == "h1"] == ["down"]
    back(cloud, lab, "h1", vm)


@pytest.mark.slow
def test_without_a_bmc_a_person_has_to_look(vm: Guest, cloud: Cloud, lab: Lab) -> None:
    vm.do("migrate", live=True)
    there = ("host", "enroll", f"root@{lab.endpoint('h1').address}", "--name", "h1", "--key", str(lab.key), "--yes")
    cloud.rackflow(*there, "--driver", "kvm")
    try:
        lab.call("crash", "h1")
        said = until(lambda: (cloud.show("host", "h1")["error"] or {}).get("evidence", {}).get("failover"), 90)
        assert "it has no BMC" in said
        reconcile(cloud)
        shown = vm.show()
        assert (shown["host"], runs_on(vm)) == ("h1", [])
        assert "h1 does not answer" in shown["reason"]
        cloud.rackflow("host", "fence", "h1", "--confirmed", "--yes")
        moved_to(vm, "h2")
        back(cloud, lab, "h1", vm)
    finally:
        lab.call("start", "h1")
        cloud.rackflow("apply", "-f", str(lab.blueprint))
    with only(cloud, "h1"):
        assert cloud.show("host", "h1")["state"] == "ready"
