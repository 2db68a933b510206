"""Every ready-made blueprint runs on the lab, and does what it says."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.cloud import ROOT, Cloud
from blueprints.blueprint import load

ALL = sorted((ROOT / "blueprints" / "library").glob("*.yaml"))
OWN_HARDWARE = [file for file in ALL if any(s.cpu_pinning or s.pci or s.hugepages for s in load(file).expanded())]
LIBRARY = [file for file in ALL if file not in OWN_HARDWARE]  # the lab's hosts offer no cores, pages or devices
BOOT_S = 180  # of an emulated VM on a busy machine


def until(what: Callable[[], Any], timeout_s: float = BOOT_S) -> Any:
    """Return what() as soon as it is true."""
    end = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.5)
    return found


@pytest.fixture(scope="module")
def made(front_end: Cloud) -> Iterator[dict[str, dict[str, Any]]]:
    """All of the library applied at once; yields the instances by name, and deletes them again."""
    files = [word for file in LIBRARY for word in ("-f", str(file))]
    try:
        front_end.rackflow("apply", *files)
        yield {row["name"]: row for row in json.loads(front_end.rackflow("instance", "list", "-o", "json"))}
        assert "unchanged" in front_end.run("apply", *files).stderr
    finally:
        front_end.rackflow("delete", *files, "--yes")
    left = front_end.rackflow("instance", "list", "-o", "name").split()
    assert set(left) & {spec.name for file in LIBRARY for spec in load(file).expanded()} == set()


@pytest.mark.parametrize("file", LIBRARY, ids=lambda file: file.stem)
def test_it_runs_where_and_as_it_asks(made: dict[str, dict[str, Any]], file: Path) -> None:
    for spec in load(file).expanded():
        row = made[spec.name]
        assert (row["state"], row["labels"], row["memory_mib"]) == ("running", spec.labels, spec.memory_mib)
        assert row["host"] == (spec.requirements.host or row["host"])
        fixed = [nic.address for nic in spec.nics if nic.address]
        assert fixed == row["addresses"][: len(fixed)]


@pytest.mark.parametrize("file", OWN_HARDWARE, ids=lambda file: file.stem)
def test_what_asks_for_hardware_of_its_own_is_told_what_the_hosts_lack(front_end: Cloud, file: Path) -> None:
    plan = json.loads(front_end.rackflow("plan", "-f", str(file), "-o", "json"))
    assert [one["host"] for one in plan["placements"]] == [None]
    assert "pinning" in plan["placements"][0]["error"]["message"]


def test_user_data_makes_the_web_server_of_web_vm(front_end: Cloud, made: dict[str, dict[str, Any]]) -> None:
    others = [name for name, row in made.items() if row["kind"] == "vm" and name != "web"]
    front_end.rackflow("instance", "shutdown", *others, "--grace", "0")  # they all boot on a few emulated cores
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def page(address: str) -> str:
        try:
            with opener.open(f"http://{address}:8080/hello.txt", timeout=2) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    (address,) = made["web"]["addresses"]
    assert until(lambda: page(address)) == "hello from web\n"


def test_ssh_into_a_vm_with_the_key_that_it_was_given(front_end: Cloud, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    front_end.rackflow(
        "instance", "create", "ssh-me", "--image", "tiny", "--memory", "128MiB", "--ssh-key", f"{key}.pub"
    )
    try:
        login = ("instance", "ssh", "ssh-me", "--key", str(key))
        until(lambda: front_end.run(*login, "true").returncode == 0)
        done = front_end.run(*login, "--", "sh", "-c", "'hostname; exit 7'")
        assert (done.stdout, done.returncode) == ("ssh-me\n", 7)
    finally:
        front_end.rackflow("instance", "delete", "ssh-me")
