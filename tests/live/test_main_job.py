"""The main job on real hosts, through the command line, checked from outside."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.cloud import Cloud
from core.ids import on_host
from tests.labs import Lab

BLUEPRINT = """
instances:
- {name: main-vm, image: tiny, memory: 128MiB, disks: [{name: data, size: 32MiB}]}
- {name: main-box, image: busybox, cpu: 0.2, memory: 32MiB, count: 2}
"""


def until(what: Callable[[], Any], timeout_s: float = 60) -> Any:
    """Return what() as soon as it is true."""
    end = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.3)
    return found


def pings(address: str) -> bool:
    return subprocess.run(["ping", "-c1", "-W1", address], capture_output=True).returncode == 0


def page(address: str) -> str:
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{address}/", timeout=2) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def traces(lab: Lab, instance_id: str) -> list[str]:
    """Return all that hosts still have of an instance."""
    name = on_host(instance_id)
    look = (
        f"(virsh list --all --name 2>/dev/null; lxc list -c n -f csv 2>/dev/null; "
        f"ls -d /var/lib/rackflow/datastore/instances/{instance_id} 2>/dev/null) | grep -e {name} -e {instance_id}"
    )
    return [f"{host}: {seen}" for host in lab.hosts() if (seen := lab.run(host, look, check=False).strip())]


@pytest.fixture(scope="module")
def deployed(front_end: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The blueprint, applied."""
    file = tmp_path_factory.mktemp("main") / "main.yaml"
    file.write_text(BLUEPRINT)
    front_end.rackflow("apply", "-f", str(file))
    yield file
    front_end.rackflow("delete", "-f", str(file), "--yes", check=False)


def test_vm_answers_on_its_address(front_end: Cloud, deployed: Path) -> None:
    vm = front_end.show("instance", "main-vm")
    assert vm["state"] == "running"
    assert front_end.show("host", vm["host"])["driver"] == "kvm"
    (address,) = vm["addresses"]
    until(lambda: pings(address), 90)
    assert "main-vm" in until(lambda: page(address))
    assert "GUEST-READY main-vm" in until(lambda: front_end.rackflow("instance", "logs", "main-vm"))


def test_containers_run_commands(front_end: Cloud, deployed: Path) -> None:
    for name in ("main-box-1", "main-box-2"):
        done = front_end.run("instance", "exec", name, "--", "sh", "-c", "echo out; hostname; exit 3")
        assert done.returncode == 3
        assert done.stdout.splitlines() == ["out", name]
        assert until(lambda n=name: pings(front_end.show("instance", n)["addresses"][0]))  # type: ignore[misc]


def test_applying_again_changes_nothing_and_a_new_count_only_that(front_end: Cloud, deployed: Path) -> None:
    before = {i["id"] for i in front_end.call("GET", "/v1/instances") if i["name"].startswith("main-")}
    front_end.rackflow("apply", "-f", str(deployed))
    assert {i["id"] for i in front_end.call("GET", "/v1/instances") if i["name"].startswith("main-")} == before
    more = deployed.with_name("more.yaml")
    more.write_text(BLUEPRINT.replace("count: 2", "count: 3"))
    front_end.rackflow("apply", "-f", str(more))
    after = {i["id"] for i in front_end.call("GET", "/v1/instances") if i["name"].startswith("main-")}
    assert before < after
    assert len(after - before) == 1
    front_end.rackflow("apply", "-f", str(deployed), "--prune")
    assert {i["id"] for i in front_end.call("GET", "/v1/instances") if i["name"].startswith("main-")} == before


def test_history_explain_and_query_tell_of_it(front_end: Cloud, deployed: Path) -> None:
    def started() -> bool:
        told = json.loads(front_end.rackflow("history", "main-vm", "-o", "json"))["timeline"]
        return any(entry.get("step") == "start" for entry in told)

    until(started)
    record = json.loads(front_end.rackflow("explain", "main-vm", "-o", "json"))
    assert {row["host"] for row in record["hosts"]} == {"h1", "h2", "h3", "h4"}
    rows = json.loads(
        front_end.rackflow("query", "SELECT count(*) AS n FROM steps WHERE step = 'define'", "-o", "json")
    )
    assert rows[0]["n"] >= 3
    assert front_end.run("query", "DROP TABLE steps").returncode == 2


def test_stop_start_and_delete_leave_nothing(front_end: Cloud, lab: Lab) -> None:
    front_end.rackflow("instance", "create", "gone-vm", "--image", "tiny", "--memory", "128MiB")
    front_end.rackflow("instance", "create", "gone-box", "--image", "busybox", "--cpu", "0.1", "--memory", "32MiB")
    ids = [front_end.show("instance", name)["id"] for name in ("gone-vm", "gone-box")]
    assert all(traces(lab, i) for i in ids)
    for name in ("gone-vm", "gone-box"):
        front_end.rackflow("instance", "shutdown", name, "--grace", "5")
        assert front_end.show("instance", name)["state"] == "off"
        front_end.rackflow("instance", "start", name)
        assert front_end.show("instance", name)["state"] == "running"
        front_end.rackflow("instance", "delete", name, "--yes")
        assert front_end.run("instance", "show", name).returncode == 3
    assert [traces(lab, i) for i in ids] == [[], []]


@pytest.mark.slow
def test_the_worker_is_killed_in_the_middle(front_end: Cloud, lab: Lab) -> None:
    """Nothing is stuck, nothing is left behind: what was asked for is there, or undone."""
    names = [f"kill-{n}" for n in range(1, 9)]
    answer = front_end.call(
        "POST", "/v1/instances", {"name": "kill", "image": "busybox", "cpu": 0.1, "memory": 32, "count": 8}
    )
    ids = [o["id"] for o in answer["operations"]]
    until(lambda: any(s["name"] == "start" for s in front_end.call("GET", f"/v1/operations/{ids[0]}")["steps"]), 30)
    worker = next(
        p for p in json.loads(front_end.rackflow("status", "-o", "json"))["processes"] if p["name"] == "worker"
    )
    subprocess.run(["kill", "-9", str(worker["pid"])], check=True)
    rows = front_end.wait(ids, timeout_s=120)
    assert {r["state"] for r in rows} <= {"done", "compensated"}
    states = {name: front_end.show("instance", name)["state"] for name in names}
    assert set(states.values()) <= {"running", "failed"}, states
    uids = [front_end.show("instance", name)["id"] for name in names]
    for name in names:
        front_end.rackflow("instance", "delete", name, "--yes")
    assert [t for uid in uids for t in traces(lab, uid)] == []


def test_delete_while_deploying(front_end: Cloud, lab: Lab) -> None:
    answer = front_end.call("POST", "/v1/instances", {"name": "short", "image": "tiny", "memory": 128})
    uid = answer["operations"][0]["subject"].removeprefix("instance/")
    gone = front_end.call("DELETE", "/v1/instances/short")
    rows = front_end.wait([o["id"] for o in [*answer["operations"], *gone["operations"]]], timeout_s=60)
    assert rows[-1]["state"] == "done"
    assert traces(lab, uid) == []
