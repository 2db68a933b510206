"""The lab itself: boots, crashes, comes back, goes, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from blueprints.host import HostSpec
from blueprints.image import ImageSpec
from blueprints.network import NetworkSpec
from lab.settings import OWNER_FILE
from tests.labs import ROOT, Lab


def traces(folder: Path) -> dict[str, list[str]]:
    """Look for what a lab leaves, by other means than the lab's own check."""

    def said(*argv: str) -> list[str]:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()

    return {
        "namespaces": [line for line in said("ip", "netns", "list") if line.startswith("rf")],
        "links": [line for line in said("ip", "-brief", "link") if "rfctl" in line],
        "routes": [line for line in said("ip", "route") if line.startswith("198.18.")],
        "loops": [line for line in said("losetup", "--all") if str(folder) in line],
        "mounts": [line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line],
        "cgroups": [str(path) for path in Path("/sys/fs/cgroup").rglob("rf-h*")],
        "processes": [
            line for line in said("ps", "-eo", "args")
            if "/lab/boot/" in line or "/run/daemons.sh" in line or "-m lab.bmc" in line
        ],
        "files": [str(folder)] if folder.exists() else [],
    }


@pytest.fixture(scope="module")
def small(lab_alone: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One KVM and one LXD host. Skips all that need them where another lab stands and is to stay: there can be one."""
    if not lab_alone and OWNER_FILE.exists():
        pytest.skip(f"RACKFLOW_TEST_KEEP_LAB keeps the lab in {OWNER_FILE.read_text().strip()}")
    found = Lab(tmp_path_factory.mktemp("lab") / "small")
    found.call("up", "kvm:1", "lxd:1")
    yield found
    found.call("down")
    assert traces(found.dir) == {name: [] for name in traces(found.dir)}
    assert "nothing is left" in found.call("check").stderr


def test_hosts_are_apart(small: Lab) -> None:
    assert [(row["name"], row["kind"], row["state"]) for row in small.status()] == [
        ("h1", "kvm", "up"), ("h2", "lxd", "up"),
    ]  # fmt: skip
    seen = {host: small.run(host, "hostname; cat /etc/machine-id; readlink /proc/self/ns/net") for host in ("h1", "h2")}
    assert seen["h1"].splitlines()[0] == "h1"
    assert not set(seen["h1"].splitlines()) & set(seen["h2"].splitlines())


def test_debian_defaults(small: Lab) -> None:
    """SSH's 10 sessions; QEMU not as root; no listener but SSH; no way out."""
    settings = small.run("h1", "/usr/sbin/sshd -T -f /etc/ssh/lab/sshd_config").splitlines()
    assert "maxsessions 10" in settings
    assert "passwordauthentication no" in settings
    assert "libvirt-qemu" in small.run("h1", "stat -c %U /var/lib/libvirt/qemu")
    assert small.run("h1", "cat /etc/libvirt/qemu.conf").strip() == 'security_driver = "none"'
    for host in ("h1", "h2"):
        listening = small.run(host, "ss -Hltn | awk '{print $4}'").split()
        assert {address.rsplit(":", 1)[1] for address in listening} == {"22"}
        assert "default" not in small.run(host, "ip route")


def test_daemons_answer_and_know_nothing_of_this_machine(small: Lab) -> None:
    assert small.run("h1", "virsh -q list --all --name; virsh -q pool-list --all --name").strip() == ""
    assert small.run("h2", "lxc query /1.0/storage-pools").strip() == "[]"


def test_user_with_sudo(small: Lab) -> None:
    assert small.run("h1", "id -un; sudo -n id -un", user="rack").split() == ["rack", "root"]


def test_this_machine_reaches_the_data_network_and_containers(small: Lab) -> None:
    small.run("h2", "ip link add lxcbr0 type bridge; ip addr add 198.18.22.1/24 dev lxcbr0; ip link set lxcbr0 up")
    for address in ("198.18.17.11", "198.18.17.12", "198.18.22.1"):
        subprocess.run(["ping", "-c", "1", "-W", "2", address], check=True, capture_output=True)
    small.run("h1", "ping -c 1 -W 2 198.18.22.1")


def test_blueprint_is_one(small: Lab) -> None:
    written = yaml.safe_load(small.blueprint.read_text())
    hosts = [HostSpec.model_validate(host) for host in written["hosts"]]
    keys = [small.run(host, "ssh-keygen -l -f /etc/ssh/lab/hostkey.pub") for host in ("h1", "h2")]
    assert [host.fingerprint for host in hosts] == [line.split()[1] for line in keys]
    assert [(host.address, host.driver) for host in hosts] == [("198.18.16.11", "kvm"), ("198.18.16.12", "lxd")]
    bmcs = [host.bmc for host in hosts if host.bmc]
    assert [bmc.system for bmc in bmcs] == ["h1", "h2"]
    assert all(bmc.password_file and Path(bmc.password_file).stat().st_mode & 0o77 == 0 for bmc in bmcs)
    networks = {network["name"]: NetworkSpec.model_validate(network) for network in written["networks"]}
    assert networks["lan"].default_for == ("vm",)
    assert networks["containers"].addressing == "host"
    images = [ImageSpec.model_validate(image) for image in written["images"]]
    assert all(Path(image.source).is_file() for image in images)


def test_power_loss(small: Lab) -> None:
    """Processes and run-time network settings go, the disk stays."""
    small.run("h1", "echo kept > /srv/local/note; echo kept > /etc/note; sync; sleep 1000 > /dev/null 2>&1 &")
    small.run("h1", "ip link add extra type bridge")
    assert "is off" in small.call("crash", "h1").stderr
    assert small.status()[0]["state"] == "down"
    assert small.run("h1", "true", check=False) == ""
    assert small.run("h2", "hostname").strip() == "h2"
    assert "is up" in small.call("start", "h1").stderr
    assert small.run("h1", "cat /srv/local/note /etc/note").split() == ["kept", "kept"]
    assert small.run("h1", "pgrep -x sleep", check=False) == ""
    assert "extra" not in small.run("h1", "ip -brief link")


def test_daemon_that_dies_is_started_again(small: Lab) -> None:
    before = small.run("h1", "pgrep -x libvirtd")
    small.run("h1", "pkill -9 -x libvirtd")
    deadline = time.monotonic() + 20
    while small.run("h1", "virsh -q uri", check=False).strip() != "qemu:///system":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert small.run("h1", "pgrep -x libvirtd") != before


def test_delay_outlives_a_reboot(small: Lab) -> None:
    def round_trip_ms() -> float:
        done = subprocess.run(
            ["ping", "-c", "3", "-i", "0.2", "-q", "198.18.16.11"], capture_output=True, text=True, check=True
        )
        return float(done.stdout.rsplit("=", 1)[1].split("/")[0])  # the shortest

    small.call("delay", "h1", "40")
    assert 80 <= round_trip_ms() < 120
    small.call("crash", "h1")
    small.call("start", "h1")
    assert 80 <= round_trip_ms() < 120
    small.call("delay", "h1", "0")
    assert round_trip_ms() < 40


def answers(address: str) -> bool:
    return subprocess.run(["ping", "-c", "1", "-W", "1", address], capture_output=True, check=False).returncode == 0


def test_a_host_that_is_cut_off_runs_on(small: Lab) -> None:
    pid = small.status()[0]["pid"]
    assert "is cut off" in small.call("cut", "h1").stderr
    assert "already" in small.call("cut", "h1").stderr
    assert not answers("198.18.16.11")
    assert answers("198.18.17.11")  # the data network is another one
    assert answers("198.18.16.12")
    assert "is reached again" in small.call("join", "h1").stderr
    assert small.run("h1", "hostname").strip() == "h1"
    assert small.status()[0]["pid"] == pid
    small.call("cut", "h1")
    small.call("crash", "h1")
    assert small.call("join", "h1", check=False).returncode == 1  # it has no power
    small.call("start", "h1")
    assert small.run("h1", "hostname").strip() == "h1"


def test_a_host_that_hangs_takes_connections_and_can_be_crashed(small: Lab) -> None:
    small.call("freeze", "h2")
    with socket.create_connection(("198.18.16.12", 22), timeout=5) as line:
        line.settimeout(1)
        with pytest.raises(TimeoutError):
            line.recv(1)  # sshd would say its version at once
    assert "goes on" in small.call("thaw", "h2").stderr
    assert small.run("h2", "hostname").strip() == "h2"
    small.call("freeze", "h2")
    small.call("crash", "h2")
    assert small.status()[1]["state"] == "down"
    small.call("start", "h2")
    assert small.run("h2", "hostname").strip() == "h2"


def test_up_again(small: Lab, tmp_path: Path) -> None:
    """The same lab is left alone, another one is refused: its namespaces would be the same."""
    pid = small.status()[0]["pid"]
    assert "is up already" in small.call("up", "kvm:1", "lxd:1").stderr
    assert small.status()[0]["pid"] == pid
    assert small.call("up", "kvm:2", check=False).returncode == 5
    other = Lab(tmp_path / "other")
    for words in (["up", "kvm:1"], ["down"]):
        refused = other.call(*words, check=False)
        assert refused.returncode == 5
        assert str(small.dir) in refused.stderr
    assert small.status()[0]["pid"] == pid


def test_bmcs_that_died_are_started_again(small: Lab) -> None:
    def serving() -> list[int]:
        argv = ["pgrep", "-f", "--", f"-m lab.bmc {small.dir} "]
        return [int(pid) for pid in subprocess.run(argv, capture_output=True, text=True, check=False).stdout.split()]

    (before,) = serving()
    os.kill(before, signal.SIGKILL)
    assert "] up: " in small.call("up", "kvm:1", "lxd:1").stderr
    (after,) = serving()
    assert after != before
    assert "is up already" in small.call("up", "kvm:1", "lxd:1").stderr


def test_check_lists_what_is_there(small: Lab) -> None:
    found = small.call("check", check=False)
    assert found.returncode == 1
    kinds = {line.split()[0] for line in found.stdout.splitlines()}
    assert kinds == {"process", "loop", "namespace", "cgroup", "link", "route", "file"}


def test_bad_words(small: Lab) -> None:
    assert small.call("crash", "h9", check=False).returncode == 3
    assert small.call("up", "esxi:2", check=False).returncode == 2


def test_a_killed_up_is_cleaned_by_the_next(small: Lab) -> None:
    """Runs last: it takes the module's lab down and builds it again."""
    small.call("down")
    begun = subprocess.Popen(
        [sys.executable, "-m", "lab", "up", "kvm:1", "lxd:1"], cwd=ROOT, env=small.env, stderr=subprocess.DEVNULL
    )
    while not Path("/run/netns/rfh1").exists():
        assert begun.poll() is None
        time.sleep(0.01)
    os.kill(begun.pid, signal.SIGKILL)
    begun.wait()
    assert small.call("check", check=False).returncode == 1
    assert "removing what an earlier lab left" in small.call("up", "kvm:1", "lxd:1").stderr
    assert small.run("h1", "virsh -q uri").strip() == "qemu:///system"
