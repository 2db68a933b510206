"""Hosts that are emptied, re-enrolled with what they hold, and that hand over what ran there before."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from bench.cloud import Cloud
from tests.labs import Lab
from tests.live.guests import WORD, Guest, box_on, host_is, qemu_pid, until, vm_on
from tests.live.test_main_job import traces

DOMAIN = """<domain type='qemu'><name>by-hand</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>
<devices><disk type='file'><driver name='qemu' type='qcow2'/><source file='/var/lib/by-hand/disk.qcow2'/>
<target dev='vda' bus='virtio'/></disk>
<interface type='bridge'><mac address='52:54:00:12:34:56'/><source bridge='br0'/><model type='virtio'/></interface>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<serial type='pty'/></devices></domain>"""


@pytest.fixture
def vms(front_end: Cloud) -> Iterator[list[Guest]]:
    """Two VMs on h1, of which one is off."""
    with vm_on(front_end, "evac-on", "h1") as runs, vm_on(front_end, "evac-off", "h1") as is_off:
        is_off.do("shutdown", grace_s=1)
        yield [runs, is_off]


@pytest.mark.slow  # 82 s; one VM at a time in test_kvm_moves.py, evacuations of simulated hosts in tests/integration
def test_a_kvm_host_is_emptied_without_stopping_anything(vms: list[Guest], front_end: Cloud, lab: Lab) -> None:
    runs, is_off = vms
    boot = runs.boot_id()
    front_end.rackflow("host", "evacuate", "h1", "--then", "maintenance")
    try:
        assert front_end.show("host", "h1")["state"] == "maintenance"
        assert [(one.show()["host"], one.show()["state"]) for one in vms] == [("h2", "running"), ("h2", "off")]
        assert (runs.read(), runs.boot_id()) == (WORD, boot)
        for one in vms:
            assert [seen.split(":")[0] for seen in traces(lab, one.show()["id"])] == ["h2"]
        refused = front_end.run(
            "instance", "create", "evac-none", "--image", "tiny", "--memory", "128MiB", "--host", "h1", "--timeout", "5"
        )
        assert refused.returncode != 0
        assert "maintenance" in front_end.run("explain", "evac-none").stdout
    finally:
        front_end.run("instance", "delete", "evac-none", "--yes")
        front_end.rackflow("host", "enable", "h1")
    assert host_is(front_end, "h1", "ready")
    is_off.do("start")
    assert is_off.read() == WORD


@pytest.mark.slow
def test_an_lxd_host_is_emptied(front_end: Cloud, lab: Lab) -> None:
    with box_on(front_end, "evac-a", "h3") as one, box_on(front_end, "evac-b", "h3") as two:
        front_end.rackflow("host", "evacuate", "h3", "--then", "disabled")
        try:
            for box in (one, two):
                shown = box.show()
                assert (shown["host"], shown["state"], box.read()) == ("h4", "running", WORD)
                assert [seen.split(":")[0] for seen in traces(lab, shown["id"])] == ["h4"]
        finally:
            front_end.rackflow("host", "enable", "h3")


@pytest.mark.slow
def test_a_new_host_key_is_taken_while_it_holds_instances(front_end: Cloud, lab: Lab) -> None:
    """As after a change of /etc/ssh; what runs there runs on."""
    keys = "/etc/ssh/lab"
    trusting = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-i", str(lab.key)]
    address = lab.endpoint("h4").address
    before = lab.run("h4", f"ssh-keygen -l -f {keys}/hostkey.pub").split()[1]

    def on_h4(command: str) -> str:
        argv = ["ssh", *trusting, f"root@{address}", command]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30).stdout

    def enroll(fingerprint: str) -> None:
        front_end.rackflow(
            "host", "enroll", f"root@{address}", "--name", "h4", "--key", str(lab.key), "--fingerprint", fingerprint,
            "--driver", "lxd", "--yes",
        )  # fmt: skip

    with box_on(front_end, "evac-key", "h4") as box:
        boot = box.sh("cat /proc/1/stat").split()[21]  # when its init began
        make = f"ssh-keygen -q -t ed25519 -N '' -f {keys}/hostkey"
        on_h4(f"mkdir {keys}/kept; mv {keys}/hostkey* {keys}/kept; {make}; pkill -x sshd")
        try:
            host_is(front_end, "h4", "faulty")
            enroll(until(lambda: on_h4(f"ssh-keygen -l -f {keys}/hostkey.pub")).split()[1])
            assert front_end.show("host", "h4")["state"] == "ready"
            assert (box.read(), box.sh("cat /proc/1/stat").split()[21]) == (WORD, boot)
            assert box.do("suspend")["state"] == "suspended"
            assert box.do("resume")["state"] == "running"
        finally:
            on_h4(f"mv -f {keys}/kept/* {keys}; rmdir {keys}/kept; pkill -x sshd")
            until(lambda: lab.run("h4", "hostname", check=False))
            enroll(before)
            front_end.rackflow("apply", "-f", str(lab.blueprint))
        assert box.read() == WORD


@pytest.mark.slow
def test_a_vm_made_by_hand_becomes_ours(front_end: Cloud, lab: Lab) -> None:
    with vm_on(front_end, "evac-there", "h2"):  # so that the image is there
        image = lab.run("h2", "ls /var/lib/rackflow/datastore/images/*.qcow2").split()[0]
    lab.run("h2", f"mkdir -p /var/lib/by-hand; qemu-img convert -O qcow2 {image} /var/lib/by-hand/disk.qcow2; "
            "chown -R libvirt-qemu /var/lib/by-hand; "
            f"cat > /var/lib/by-hand/xml <<'END'\n{DOMAIN}\nEND\n"
            "virsh -q define /var/lib/by-hand/xml && virsh -q start by-hand")  # fmt: skip
    try:
        pid = qemu_pid(lab, "h2", "by-hand")
        assert "by-hand" in front_end.rackflow("host", "foreign", "h2")
        front_end.rackflow("host", "adopt", "h2", "by-hand=adopted-vm")
        adopted = Guest(front_end, "adopted-vm")
        assert (adopted.show()["state"], adopted.show()["host"]) == ("running", "h2")
        assert qemu_pid(lab, "h2", "by-hand") == pid
        front_end.rackflow("reconcile")
        assert adopted.show()["state"] == "running"
        assert adopted.do("shutdown", grace_s=2)["state"] == "off"
        assert adopted.do("start")["state"] == "running"
        assert qemu_pid(lab, "h2", "by-hand") != pid
        front_end.rackflow("instance", "delete", "adopted-vm", "--yes")
        assert lab.run("h2", "virsh list --all --name").split() == []
        assert lab.run("h2", "ls /var/lib/by-hand").split() == ["disk.qcow2", "xml"]  # its disk is left
    finally:
        front_end.run("instance", "delete", "adopted-vm", "--yes")
        lab.run("h2", "virsh destroy by-hand; virsh undefine by-hand; rm -rf /var/lib/by-hand", check=False)


@pytest.mark.slow
def test_a_container_made_by_hand_becomes_ours(front_end: Cloud, lab: Lab) -> None:
    with box_on(front_end, "evac-there", "h4"):  # so that the image is there
        image = lab.run("h4", "lxc image list -f csv -c f").split()[0]
    pool = lab.run("h4", "lxc storage list -f csv").split(",")[0]
    lab.run("h4", f"lxc launch {image} by-hand --storage {pool} --network lxcbr0 < /dev/null")
    began = "lxc exec by-hand -- cat /proc/1/stat"
    try:
        boot = lab.run("h4", began).split()[21]
        refused = front_end.run("host", "adopt", "h4", "by-hand=adopted-box")
        assert "lxc config set by-hand limits.cpu 1" in refused.stderr
        lab.run("h4", "lxc config set by-hand limits.cpu 1; lxc config set by-hand limits.memory 64MiB")
        front_end.rackflow("host", "adopt", "h4", "by-hand=adopted-box")
        adopted = Guest(front_end, "adopted-box")
        assert (adopted.show()["state"], adopted.show()["host"]) == ("running", "h4")
        assert lab.run("h4", began).split()[21] == boot
        adopted.write(WORD)
        assert adopted.do("shutdown", grace_s=1)["state"] == "off"
        assert adopted.do("start")["state"] == "running"
        assert adopted.read() == WORD
        front_end.rackflow("instance", "delete", "adopted-box", "--yes")
        assert "by-hand" in lab.run("h4", "lxc list -c n -f csv")  # its disk cannot be left without it
        assert "by-hand" in front_end.rackflow("host", "foreign", "h4")
    finally:
        front_end.run("instance", "delete", "adopted-box", "--yes")
        lab.run("h4", "lxc delete --force by-hand", check=False)
