"""Real hosts that are cut off, far away, hang, or are full: nothing is lost, nothing is stuck, and the others go on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from bench.cloud import Cloud
from tests.labs import Lab
from tests.live.guests import (
    DONE,
    WORD,
    Guest,
    begin,
    box_on,
    drift,
    ended,
    in_step,
    operation,
    qemu,
    reconcile,
    runs_on,
    until,
    vm_on,
    waits,
)  # fmt: skip
from tests.live.test_main_job import traces

PARTITION_S = 20.0
SMALL = "/srv/small"


@pytest.fixture(scope="module")
def vm(front_end: Cloud) -> Iterator[Guest]:
    with vm_on(front_end, "dist-vm", "h1") as guest:
        yield guest


@pytest.fixture(scope="module")
def box(front_end: Cloud) -> Iterator[Guest]:
    with box_on(front_end, "dist-box", "h4") as guest:
        yield guest


@pytest.mark.slow
def test_a_partition_in_the_middle_of_a_live_migration(vm: Guest, front_end: Cloud, lab: Lab) -> None:
    boot, source = vm.boot_id(), vm.show()["host"]
    op = begin(vm, "migrate", live=True, bandwidth_mib_s=4)
    until(lambda: in_step(front_end, op, "transfer"), 60)
    lab.call("cut", source)
    try:
        time.sleep(PARTITION_S)  # that long the line is cut
    finally:
        lab.call("join", source)
    for _ in range(2):
        reconcile(front_end)
    found = operation(front_end, op)
    assert found["state"] in (DONE, "failed", "compensated"), (found["state"], found["reason"])
    shown = vm.show()
    assert (shown["state"], [shown["host"]]) == ("running", runs_on(vm))
    assert (vm.read(), vm.boot_id()) == (WORD, boot)
    assert [seen.split(":")[0] for seen in traces(lab, shown["id"])] == [shown["host"]]


@pytest.mark.slow
def test_a_host_far_away(front_end: Cloud, lab: Lab) -> None:
    lab.call("delay", "h2", "75")
    try:
        with vm_on(front_end, "dist-far", "h2") as far:
            assert far.do("migrate", live=True)["host"] == "h1"
            assert far.read() == WORD
            assert far.do("shutdown", grace_s=20)["state"] == "off"
            assert far.do("migrate")["host"] == "h2"
            assert far.do("start")["state"] == "running"
            assert far.do("shutdown", grace_s=1)["state"] == "off"
            gone = far.show()["id"]
            front_end.rackflow("instance", "delete", far.name, "--yes")
        assert traces(lab, gone) == []
    finally:
        lab.call("delay", "h2", "0")


def life_of_a_container_s(front_end: Cloud) -> float:
    """Return how long it takes to make one on the other LXD host and take it away."""
    began = time.monotonic()
    body = {"name": "dist-quick", "image": "busybox", "memory": "32MiB", "cpu": 0.1, "requirements": {"host": "h3"}}
    answer = front_end.call("POST", "/v1/instances", body)
    assert ended(front_end, answer["operations"][0]["id"])["state"] == DONE
    front_end.rackflow("instance", "delete", "dist-quick", "--yes")
    return time.monotonic() - began


@pytest.mark.slow
def test_a_host_that_takes_connections_and_never_answers(box: Guest, front_end: Cloud, lab: Lab) -> None:
    life_of_a_container_s(front_end)  # the first one brings the image there
    usual_s = life_of_a_container_s(front_end)
    lab.call("freeze", "h4")
    try:
        op = begin(box, "shutdown", grace_s=1)
        until(lambda: in_step(front_end, op, "stop"))
        meanwhile_s = life_of_a_container_s(front_end)
        assert "h4" in until(lambda: waits(front_end, op), 90)
    finally:
        lab.call("thaw", "h4")
    assert ended(front_end, op)["state"] == DONE
    assert (box.show()["state"], box.show()["host"]) == ("off", "h4")
    assert meanwhile_s < 2 * usual_s + 2
    reconcile(front_end)
    assert front_end.show("host", "h4")["state"] == "ready"
    assert box.do("start")["state"] == "running"


@pytest.mark.slow
def test_a_qemu_that_hangs_keeps_no_other_waiting(vm: Guest, front_end: Cloud, lab: Lab) -> None:
    host = vm.show()["host"]
    with vm_on(front_end, "dist-well", host) as well:
        qemu(lab, vm, "STOP")
        try:
            op = begin(vm, "snapshot", snapshot="never")
            until(lambda: in_step(front_end, op, "snapshot"))
            assert well.do("suspend")["state"] == "suspended"
            reconcile_began = time.monotonic()
            front_end.rackflow("reconcile")
            assert time.monotonic() - reconcile_began < 60
            assert well.do("resume")["state"] == "running"
            front_end.call("POST", f"/v1/operations/{op}/cancel")
            until(lambda: operation(front_end, op)["state"] == "compensating", 60)  # its worker waits no longer
        finally:
            qemu(lab, vm, "CONT")
        assert ended(front_end, op)["state"] == "cancelled"
        assert vm.read() == WORD
        assert lab.run(host, f"virsh snapshot-list --name rf-{vm.show()['id']}").strip() == ""
        assert vm.show()["state"] == "running"


@pytest.mark.slow
def test_a_qemu_that_hangs_is_shut_down(vm: Guest, lab: Lab) -> None:
    qemu(lab, vm, "STOP")
    began = time.monotonic()
    assert vm.do("shutdown", grace_s=3)["state"] == "off"
    assert time.monotonic() - began < 60
    assert runs_on(vm) == []
    assert vm.do("start")["state"] == "running"
    assert vm.read() == WORD


@pytest.fixture(scope="module")
def small(front_end: Cloud, lab: Lab) -> Iterator[str]:
    """A datastore that has 200 MiB on h1, as much as all have on the other hosts."""
    lab.run("h1", f"mkdir -p {SMALL} && mount -t tmpfs -o size=200m none {SMALL}")
    front_end.rackflow("datastore", "create", "small", "--path", SMALL, "--overcommit", "20")
    reconcile(front_end)
    yield "small"
    front_end.run("datastore", "delete", "small")
    lab.run("h1", f"umount {SMALL}")
    for host in lab.hosts():
        lab.run(host, f"rm -rf {SMALL}")


def fill(lab: Lab, leave_mib: int) -> None:
    """Let so much be free on the small datastore."""
    left = f"$(( ($(df --block-size=1 --output=avail {SMALL} | tail -1) / 1048576) - {leave_mib} ))"
    lab.run("h1", f"rm -f {SMALL}/filler; fallocate -l {left}M {SMALL}/filler")


@pytest.mark.slow
def test_a_full_datastore(small: str, front_end: Cloud, lab: Lab) -> None:
    fill(lab, 20)
    body = {
        "name": "dist-none", "image": "tiny", "memory": "128MiB",
        "requirements": {"host": "h1", "datastore": small},
    }
    answer = front_end.call("POST", "/v1/instances", body)
    found = ended(front_end, answer["operations"][0]["id"])
    assert found["state"] in ("failed", "compensated"), (found["state"], found["reason"])
    assert "20 MiB free" in str(found["error"])
    assert lab.run("h1", f"find {SMALL} -mindepth 2") == ""
    front_end.rackflow("instance", "delete", "dist-none", "--yes")
    lab.run("h1", f"rm {SMALL}/filler")
    with vm_on(front_end, "dist-tight", "h1", small) as tight:
        fill(lab, 20)
        refused = tight.ask("attach-disk", disk={"name": "more", "size": "64MiB"})
        assert refused["state"] in ("failed", "compensated")
        assert "20 MiB free" in str(refused["error"])
        assert lab.run("h1", f"ls {SMALL}/instances/*/more*", check=False) == ""
        lab.run("h1", f"rm {SMALL}/filler")
        tight.do("attach-disk", disk={"name": "data", "size": "96MiB"})
        until(lambda: "98304 vdc" in tight.sh("cat /proc/partitions"))
        fill(lab, 8)
        tight.sh("(dd if=/dev/zero of=/dev/vdc bs=1M count=90; sync; echo whole > /tmp/end) >/dev/null 2>&1 &")
        fill_seen = until(lambda: reconcile(front_end) or drift(front_end, tight), 90)
        assert [(one["kind"], one["seen"]["reason"]) for one in fill_seen] == [
            ("paused", "a disk failed or its datastore is full")
        ]
        lab.run("h1", f"rm {SMALL}/filler")
        assert tight.do("resume")["state"] == "running"
        until(lambda: tight.sh("cat /tmp/end 2>/dev/null || true") == "whole", 90)
        assert tight.read() == WORD
