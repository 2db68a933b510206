"""Machines that cannot be enrolled, each with the reason; and one that is reached by a user with sudo."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from bench.cloud import Cloud
from tests.labs import Lab
from tests.live.test_main_job import until

CANNOT_WORK = 1
CONFLICT = 5


@pytest.fixture(autouse=True)
def _no_trace(front_end: Cloud) -> Iterator[None]:
    yield
    front_end.run("host", "retire", "probe", "--yes", "--force")


def enroll(front_end: Cloud, lab: Lab, to: str, *more: str) -> subprocess.CompletedProcess[str]:
    key = [] if "--key" in more else ["--key", str(lab.key)]
    return front_end.run("host", "enroll", to, "--name", "probe", *key, "--yes", *more)


def test_a_machine_that_does_not_answer(front_end: Cloud, lab: Lab) -> None:
    done = enroll(front_end, lab, "root@198.18.16.99", "--timeout", "60")
    assert done.returncode != 0
    assert "198.18.16.99" in done.stderr


def test_a_wrong_fingerprint(front_end: Cloud, lab: Lab) -> None:
    front_end.rackflow("host", "retire", "h2", "--yes")
    try:
        done = enroll(front_end, lab, f"root@{lab.endpoint('h2').address}", "--fingerprint", "SHA256:" + "A" * 43)
        assert done.returncode == CANNOT_WORK
        assert "host key" in done.stderr
        assert front_end.show("host", "probe")["state"] == "faulty"
        front_end.run("host", "retire", "probe", "--yes")
    finally:
        front_end.rackflow("apply", "-f", str(lab.blueprint))


def test_a_key_that_is_not_accepted(front_end: Cloud, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> None:
    key = tmp_path_factory.mktemp("key") / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    front_end.rackflow("host", "retire", "h2", "--yes")
    try:
        done = enroll(front_end, lab, f"root@{lab.endpoint('h2').address}", "--key", str(key))
        assert done.returncode == CANNOT_WORK
        assert "did not accept our key" in done.stderr
        front_end.run("host", "retire", "probe", "--yes")
    finally:
        front_end.rackflow("apply", "-f", str(lab.blueprint))


def test_a_machine_without_the_hypervisor_asked_for(front_end: Cloud, lab: Lab) -> None:
    front_end.rackflow("host", "retire", "h2", "--yes")
    try:
        done = enroll(front_end, lab, f"root@{lab.endpoint('h2').address}", "--driver", "lxd")
        assert done.returncode == CANNOT_WORK
        assert "lxd" in done.stderr.lower()
        front_end.run("host", "retire", "probe", "--yes")
    finally:
        front_end.rackflow("apply", "-f", str(lab.blueprint))


def test_the_same_machine_twice(front_end: Cloud, lab: Lab) -> None:
    done = enroll(front_end, lab, f"root@{lab.endpoint('h1').address}")
    assert done.returncode == CONFLICT
    assert "is host h1 already" in done.stderr


def test_a_user_with_sudo(front_end: Cloud, lab: Lab) -> None:
    """`rack` may use sudo and nothing else: enrollment lets it reach the daemon, and a VM runs."""
    front_end.rackflow("host", "retire", "h2", "--yes")
    try:
        done = enroll(front_end, lab, f"rack@{lab.endpoint('h2').address}", "--driver", "kvm")
        assert done.returncode == 0, done.stderr
        front_end.rackflow("instance", "create", "by-sudo", "--image", "tiny", "--memory", "128MiB", "--host", "probe")
        assert front_end.show("instance", "by-sudo")["state"] == "running"
        front_end.rackflow("instance", "delete", "by-sudo", "--yes")
        front_end.rackflow("host", "retire", "probe", "--yes")
    finally:
        front_end.run("instance", "delete", "by-sudo", "--yes")
        front_end.run("host", "retire", "probe", "--yes", "--force")
        front_end.rackflow("apply", "-f", str(lab.blueprint))


def test_a_changed_host_key_stops_all_talk(front_end: Cloud, lab: Lab) -> None:
    """A host whose key is not the pinned one is not spoken to, and the record says why."""
    keys = "/etc/ssh/lab"
    make = f"ssh-keygen -q -t ed25519 -N '' -f {keys}/hostkey"
    lab.run("h4", f"mkdir {keys}/kept; mv {keys}/hostkey* {keys}/kept; {make}")
    reboot(lab, "h4")
    try:
        seen = until(lambda: (h := front_end.show("host", "h4"))["state"] == "faulty" and h, 90)
        assert seen["error"]["code"] == "credential-rejected"
        assert "not the pinned one" in seen["error"]["message"]
    finally:
        trusting = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-i", str(lab.key)]
        back = f"mv -f {keys}/kept/* {keys}; rmdir {keys}/kept"
        subprocess.run(["ssh", *trusting, f"root@{lab.endpoint('h4').address}", back], check=True, timeout=30)
        reboot(lab, "h4")
    until(lambda: front_end.show("host", "h4")["state"] == "ready", 90)


def reboot(lab: Lab, host: str) -> None:
    lab.call("crash", host)
    lab.call("start", host)
