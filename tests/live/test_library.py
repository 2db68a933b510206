"""Every ready-made blueprint runs on the lab, and does what it says."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.cloud import ROOT, Cloud
from blueprints.blueprint import load

LIBRARY = sorted((ROOT / "blueprints" / "library").glob("*.yaml"))
BOOT_S = 120  # of an emulated VM on a busy machine


def until(what: Callable[[], Any], timeout_s: float = BOOT_S) -> Any:
    """Return what() as soon as it is true."""
    end = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.5)
    return found


@contextmanager
def applied(cloud: Cloud, file: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """Apply a blueprint, yield its instances by name, and delete it."""
    try:
        cloud.rackflow("apply", "-f", str(file))
        names = {spec.name for spec in load(file).expanded()}
        rows = json.loads(cloud.rackflow("instance", "list", "-o", "json"))
        yield {row["name"]: row for row in rows if row["name"] in names}
    finally:
        cloud.rackflow("delete", "-f", str(file), "--yes")


@pytest.mark.parametrize("file", LIBRARY, ids=lambda file: file.stem)
def test_it_runs_and_goes_away(front_end: Cloud, file: Path) -> None:
    wanted = {spec.name: spec for spec in load(file).expanded()}
    with applied(front_end, file) as made:
        assert {name: row["state"] for name, row in made.items()} == dict.fromkeys(wanted, "running")
        for name, spec in wanted.items():
            assert made[name]["host"] == (spec.requirements.host or made[name]["host"])
            fixed = [nic.address for nic in spec.nics if nic.address]
            assert fixed == made[name]["addresses"][: len(fixed)]
        assert "unchanged" in front_end.run("apply", "-f", str(file)).stderr
    left = front_end.rackflow("instance", "list", "-o", "name").split()
    assert set(left) & set(wanted) == set()


def test_user_data_makes_the_web_server_of_web_vm(front_end: Cloud) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def page(address: str) -> str:
        try:
            with opener.open(f"http://{address}:8080/hello.txt", timeout=2) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    with applied(front_end, ROOT / "blueprints" / "library" / "web-vm.yaml") as made:
        (address,) = made["web"]["addresses"]
        assert until(lambda: page(address)) == "hello from web\n"


def test_ssh_into_a_vm_with_the_key_that_it_was_given(front_end: Cloud, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    front_end.rackflow(
        "instance", "create", "login", "--image", "tiny", "--memory", "128MiB", "--ssh-key", f"{key}.pub"
    )
    try:
        login = ("instance", "ssh", "login", "--key", str(key))
        until(lambda: front_end.run(*login, "true").returncode == 0)
        done = front_end.run(*login, "--", "sh", "-c", "'hostname; exit 7'")
        assert (done.stdout, done.returncode) == ("login\n", 7)
    finally:
        front_end.rackflow("instance", "delete", "login")
