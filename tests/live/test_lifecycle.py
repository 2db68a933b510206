"""Every verb on real instances, through the API; what was written inside the guest survives all of them."""

from __future__ import annotations

import time
import urllib.error
from collections.abc import Iterator
from typing import Any

import pytest

from bench.cloud import Cloud
from tests.labs import Lab
from tests.live.test_main_job import traces, until

WORD = "precious"
DONE = "done"


class Guest:
    """One instance, by its verbs."""

    def __init__(self, cloud: Cloud, name: str) -> None:
        self.cloud = cloud
        self.name = name

    def show(self) -> dict[str, Any]:
        found: dict[str, Any] = self.cloud.call("GET", f"/v1/instances/{self.name}")
        return found

    def ask(self, verb: str, **body: Any) -> dict[str, Any]:
        """Ask for a verb and return its operation once it has ended."""
        answer = self.cloud.call("POST", f"/v1/instances/{self.name}/{verb}", body or None)
        (op,) = self.cloud.wait([answer["operations"][0]["id"]], timeout_s=180)
        return op

    def do(self, verb: str, **body: Any) -> dict[str, Any]:
        """See a verb done, and return the instance."""
        op = self.ask(verb, **body)
        assert op["state"] == DONE, (verb, op["error"], [(s["name"], s["state"]) for s in op["steps"]])
        if verb == "rename":
            self.name = body["name"]
        return self.show()

    def sh(self, script: str) -> str:
        done = self.cloud.call("POST", f"/v1/instances/{self.name}/exec", {"argv": ["sh", "-c", script]})
        assert done["exit_status"] == 0, done
        return str(done["stdout"]).strip()

    def write(self, text: str) -> None:
        self.sh(f"echo {text} > /root/word && sync")

    def read(self) -> str:
        """Return what was written, as soon as the guest answers."""

        def look() -> str:
            try:
                return self.sh("cat /root/word")
            except urllib.error.HTTPError:
                return ""

        return str(until(look, 120))

    def boot_id(self) -> str:
        return self.sh("cat /proc/sys/kernel/random/boot_id")


@pytest.fixture(scope="module")
def vm(front_end: Cloud) -> Iterator[Guest]:
    """A VM whose guest has written a word."""
    front_end.rackflow("instance", "create", "life-vm", "--image", "tiny", "--memory", "128MiB")
    guest = Guest(front_end, "life-vm")
    until(lambda: "GUEST-READY" in front_end.rackflow("instance", "logs", "life-vm"), 120)
    until(lambda: not front_end.run("instance", "exec", "life-vm", "--", "true").returncode, 60)
    guest.write(WORD)
    yield guest
    front_end.run("instance", "delete", guest.name, "--yes")


@pytest.fixture(scope="module")
def box(front_end: Cloud) -> Iterator[Guest]:
    """A container that has written a word."""
    front_end.rackflow("instance", "create", "life-box", "--image", "busybox", "--cpu", "0.3", "--memory", "48MiB")
    guest = Guest(front_end, "life-box")
    guest.write(WORD)
    yield guest
    front_end.run("instance", "delete", guest.name, "--yes")


def test_a_paused_vm_goes_on(vm: Guest) -> None:
    before = vm.boot_id()
    assert vm.do("suspend")["state"] == "suspended"
    assert vm.do("resume")["state"] == "running"
    assert vm.boot_id() == before


def test_a_stopped_vm_goes_on_with_its_memory_wherever_there_is_room(vm: Guest, lab: Lab) -> None:
    before = vm.boot_id()
    stopped = vm.do("stop")
    assert (stopped["state"], stopped["host"]) == ("stopped", None)
    assert traces(lab, stopped["id"]) == []
    assert vm.do("resume")["state"] == "running"
    assert (vm.read(), vm.boot_id()) == (WORD, before)


def test_a_vm_migrates_live_and_back(vm: Guest, lab: Lab) -> None:
    before, boot = vm.show(), vm.boot_id()
    for _ in range(2):
        moved = vm.do("migrate", live=True)
        assert (vm.read(), vm.boot_id()) == (WORD, boot)
        assert moved["addresses"] == before["addresses"]
        assert [seen.split(":")[0] for seen in traces(lab, moved["id"])] == [moved["host"]]
    assert moved["host"] == before["host"]


def test_a_vm_goes_back_to_a_snapshot_with_its_memory(vm: Guest) -> None:
    boot = vm.boot_id()
    vm.do("snapshot", snapshot="good")
    vm.write("spoiled")
    with pytest.raises(urllib.error.HTTPError) as refused:
        vm.ask("migrate", live=True)
    assert b"good are known to its host only" in refused.value.read()
    assert vm.do("revert", snapshot="good")["state"] == "running"
    assert (vm.read(), vm.boot_id()) == (WORD, boot)
    vm.do("drop-snapshot", snapshot="good")


def test_disks_and_nics_come_and_go_while_a_vm_runs(vm: Guest) -> None:
    def partitions() -> str:
        return vm.sh("cat /proc/partitions")

    vm.do("attach-disk", disk={"name": "data", "size": "64MiB"})
    until(lambda: "65536 vdc" in partitions())  # the guest looks when it has time
    vm.do("grow-disk", disk="data", size="128MiB")
    until(lambda: "131072 vdc" in partitions())
    vm.do("detach-disk", disk="data")
    until(lambda: "vdc" not in partitions())
    vm.do("attach-nic", nic={"network": "lan"})
    until(lambda: "eth1" in vm.sh("ip -o link"))
    vm.do("detach-nic", nic=1)
    until(lambda: "eth1" not in vm.sh("ip -o link"))
    vm.do("rename", name="life-vm2")
    vm.do("rename", name="life-vm")


def test_a_vm_goes_back_to_a_backup(vm: Guest) -> None:
    vm.do("backup", backup="full")
    vm.write("second")
    vm.do("backup", backup="more")
    vm.write("spoiled")
    backups = {b["name"]: b for b in vm.cloud.call("GET", f"/v1/instances/{vm.name}/backups")}
    assert backups["more"]["parent"] == "full"
    assert backups["more"]["size_bytes"] < backups["full"]["size_bytes"] / 4
    vm.do("revert-backup", backup="more", grace_s=1)
    assert vm.read() == "second"
    vm.do("revert-backup", backup="full", grace_s=1)
    assert vm.read() == WORD


def test_an_image_of_a_vm_boots(vm: Guest, front_end: Cloud) -> None:
    vm.do("save-image", image="life-golden")
    front_end.rackflow("instance", "create", "life-copy", "--image", "life-golden", "--memory", "128MiB")
    copy = Guest(front_end, "life-copy")
    try:
        assert copy.read() == WORD
    finally:
        front_end.rackflow("instance", "delete", "life-copy", "--yes")


def test_a_vm_that_is_off_changes_size_and_host_and_is_undeployed(vm: Guest, lab: Lab) -> None:
    assert vm.do("shutdown", grace_s=20)["state"] == "off"
    assert vm.do("resize", cpu=2, memory="144MiB")["memory_mib"] == 144
    before = vm.show()["host"]
    moved = vm.do("migrate")
    assert (moved["state"], moved["host"] != before) == ("off", True)
    parked = vm.do("undeploy")
    assert (parked["state"], parked["host"], traces(lab, parked["id"])) == ("undeployed", None, [])
    assert vm.do("start")["state"] == "running"
    assert vm.read() == WORD


def test_a_container_lives_the_same_life(box: Guest, lab: Lab) -> None:
    for verb, state in (("suspend", "suspended"), ("resume", "running"), ("reboot", "running")):
        assert box.do(verb)["state"] == state
    assert box.do("shutdown", grace_s=1)["state"] == "off"
    assert box.do("start")["state"] == "running"
    box.do("snapshot", snapshot="good")
    box.write("spoiled")
    box.do("revert", snapshot="good")
    assert box.read() == WORD
    box.do("drop-snapshot", snapshot="good")
    box.do("resize", cpu=0.5, memory="64MiB")
    box.do("attach-disk", disk={"name": "data", "size": "32MiB"})
    assert "/mnt/data" in box.sh("mount")
    box.do("detach-disk", disk="data")
    before = box.show()["host"]
    moved = box.do("migrate", grace_s=1)
    assert (moved["host"] != before, box.read()) == (True, WORD)
    assert [seen.split(":")[0] for seen in traces(lab, moved["id"])] == [moved["host"]]
    box.do("backup", backup="one")
    box.write("spoiled")
    box.do("revert-backup", backup="one", grace_s=1)
    assert box.read() == WORD
    parked = box.do("undeploy", grace_s=1)
    assert traces(lab, parked["id"]) == []
    box.do("start")
    assert box.read() == WORD


def test_what_a_container_cannot_do_is_said_at_once(box: Guest) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        box.ask("stop")
    assert refused.value.code == 501
    assert b"undeploy" in refused.value.read()


def test_a_cancelled_migration_leaves_a_vm_running_where_it_was(vm: Guest, front_end: Cloud) -> None:
    before, boot = vm.show()["host"], vm.boot_id()
    answer = front_end.call("POST", f"/v1/instances/{vm.name}/migrate", {"live": True, "bandwidth_mib_s": 1})
    (op,) = answer["operations"]

    def transferring() -> bool:
        steps = front_end.call("GET", f"/v1/operations/{op['id']}")["steps"]
        return any(s["name"] == "transfer" and s["state"] == "running" for s in steps)

    until(transferring, 60)
    begun = time.monotonic()
    front_end.rackflow("operation", "cancel", op["id"], check=False)
    (ended,) = front_end.wait([op["id"]], timeout_s=60)
    assert ended["state"] == "cancelled"
    assert time.monotonic() - begun < 20
    assert (vm.show()["host"], vm.show()["state"], vm.boot_id()) == (before, "running", boot)
