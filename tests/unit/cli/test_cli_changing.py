"""Changing verbs: what is sent, waiting and not, how it ended as exit code, data on stdout and talk on stderr."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.cli_front_end import INSTANCE, STEPS, FrontEnd, error, operation
from tests.unit.cli.conftest import Cli

CREATE = ("instance", "create", "web", "--image", "tiny")


def step(name: str, state: str, **more: Any) -> dict[str, Any]:
    ended = STEPS[0]["finished_at"] if state == "done" else None
    return {**STEPS[0], "name": name, "state": state, "finished_at": ended, **more}


@pytest.fixture
def web(front_end: FrontEnd) -> FrontEnd:
    """A front-end where `web` deploys well."""
    front_end.deploys(
        operation("pending"), operation("running", steps=[step("image", "running")]),
        operation("running", steps=[step("image", "done"), step("start", "running")]), operation("done"),
    )  # fmt: skip
    front_end.on("GET", "instances/web", 200, INSTANCE)
    return front_end


def test_create_sends_the_whole_spec(web: FrontEnd, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "user-data").write_text("#cloud-config\n")
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAA me\n")
    said = cli(
        *CREATE, "--kind", "vm", "--cpu", "1.5", "--memory", "512MiB", "--disk", "2GiB", "--data-disk", "data=1GiB",
        "--network", "lan=198.18.17.200", "--network", "other", "--user-data", tmp_path / "user-data",
        "--ssh-key", tmp_path / "key.pub", "-l", "tier=front", "--host", "h1", "--cluster", "c", "--datastore", "d",
        "--host-label", "disk=ssd", "--needs", "migrate_live", "--priority", "70", "--gang",
        "--pin", "--numa", "--hugepages", "1GiB", "--pci", "gpu", "--pci", "10de:1eb8=2", "--reservation", "launch",
    )  # fmt: skip
    assert said.code == 0
    assert web.last("POST", "instances").body == {
        "name": "web", "image": "tiny", "kind": "vm", "cpu": 1.5, "memory": "512MiB", "disk": "2GiB",
        "disks": [{"name": "data", "size": "1GiB"}],
        "nics": [{"network": "lan", "address": "198.18.17.200"}, {"network": "other"}],
        "user_data": "#cloud-config\n", "ssh_keys": ["ssh-ed25519 AAAA me"], "labels": {"tier": "front"},
        "requirements": {"host": "h1", "cluster": "c", "datastore": "d", "host_labels": {"disk": "ssd"},
                         "capabilities": ["migrate_live"], "reservation": "launch"},
        "cpu_pinning": True, "numa": "single", "hugepages": "1GiB", "pci": {"gpu": 1, "10de:1eb8": "2"},
        "priority": 70, "gang": True,
    }  # fmt: skip
    assert len(web.last("POST", "instances").headers["idempotency-key"]) == 32


def test_create_sends_only_what_was_given(web: FrontEnd, cli: Cli) -> None:
    cli(*CREATE)
    assert web.last("POST", "instances").body == {"name": "web", "image": "tiny"}


def test_create_waits_tells_each_step_and_shows_the_instance(web: FrontEnd, cli: Cli) -> None:
    said = cli(*CREATE)
    assert said.out.splitlines()[1].split()[0] == "web"
    lines = said.err.splitlines()
    assert lines[:2] == ["deploy web: image on h1", "deploy web: start on h1"]
    assert lines[2] == "✓ deploy web on h1 3.5s  (image 3.5s, volumes 3.5s, define 3.5s, start 3.5s)"


def test_progress_of_a_copy_comes_with_the_step(front_end: FrontEnd) -> None:
    from rackflow_cli.connection import Api
    from rackflow_cli.endpoint import Endpoint
    from rackflow_cli.operations import follow
    from rackflow_cli.progress import Reporter, doing

    copy = {"host": "h1", "state": "copying", "bytes_done": 30, "verified_at": None}
    front_end.on("GET", "images", 200, [{"name": "tiny", "size_bytes": 120, "copies": [copy]}])
    front_end.deploys(operation("running", steps=[step("image", "running")]), operation("done"))
    told: list[str] = []

    class Notes(Reporter):
        def update(self, operations: Sequence[Mapping[str, Any]]) -> None:
            told.extend(doing(op) for op in operations)

    accepted = {"id": operation()["id"], "state": "pending"}
    follow(Api(Endpoint(front_end.url, "")), [accepted], 30, Notes())
    assert told[0] == "image 25%"


def test_quiet_says_nothing_but_data(web: FrontEnd, cli: Cli) -> None:
    said = cli(*CREATE, "-q", "-o", "json")
    assert said.err == ""
    assert json.loads(said.out)["name"] == "web"
    assert cli("-q", *CREATE).err == ""


def test_count_gives_an_array(front_end: FrontEnd, cli: Cli) -> None:
    front_end.deploys(operation("done"))
    for n in (1, 2):
        front_end.on("GET", f"instances/web-{n}", 200, {**INSTANCE, "name": f"web-{n}"})
    said = cli(*CREATE, "--count", 2, "-o", "json")
    assert [row["name"] for row in json.loads(said.out)] == ["web-1", "web-2"]
    assert front_end.last("POST", "instances").body["count"] == 2


def test_no_wait_returns_the_operations_at_once(web: FrontEnd, cli: Cli) -> None:
    said = cli(*CREATE, "--no-wait", "-o", "json")
    assert [op["state"] for op in json.loads(said.out)] == ["pending"]
    assert not [a for a in web.asked if a.method == "GET"]
    assert operation()["id"] in cli(*CREATE, "--no-wait").out


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("no-fit", 6), ("no-capacity-now", 6), ("unreachable", 1), ("denied", 4), ("not-found", 3), ("conflict", 5),
        ("invalid", 1), ("host-fault", 1),
    ],
)  # fmt: skip
def test_how_it_failed_is_the_exit_code(front_end: FrontEnd, cli: Cli, code: str, exit_code: int) -> None:
    why = error(code, "no host fits", evidence={"h1": "memory"}, fix="ask for less")
    front_end.deploys(operation("pending"), operation("failed", error=why))
    said = cli(*CREATE, "-q")
    assert (said.code, said.out) == (exit_code, "")
    assert said.err.splitlines() == ["error: deploy web: no host fits", "  h1: memory", "what to do: ask for less"]


@pytest.mark.parametrize("state", ["compensated", "held", "cancelled"])
def test_other_ends_are_failures_with_their_reason(front_end: FrontEnd, cli: Cli, state: str) -> None:
    front_end.deploys(operation(state, reason="because"))
    said = cli(*CREATE)
    assert said.code == 1
    assert "error: deploy web: because" in said.err


def test_failures_of_one_kind_keep_their_code_mixed_ones_are_1(front_end: FrontEnd, cli: Cli) -> None:
    ops = [operation("done", "a"), operation("failed", "b", error=error("no-fit"))]
    front_end.on("POST", "instances", 202, {"request": "r", "operations": ops})
    front_end.on("GET", "operations", 200, ops)
    assert cli(*CREATE).code == 6
    ops.append(operation("failed", "c", error=error("denied")))
    assert cli(*CREATE).code == 1


def test_timeout_is_7_and_says_that_it_goes_on(front_end: FrontEnd, cli: Cli) -> None:
    front_end.deploys(operation("pending", reason="no capacity now: memory on h1"))
    said = cli(*CREATE, "--timeout", "0.1")
    assert said.code == 7
    assert "no capacity now: memory on h1" in said.err
    assert f"rackflow operation watch {operation()['id']}" in said.err


def test_a_front_end_that_is_away_for_a_moment_is_waited_for(
    front_end: FrontEnd, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rackflow_cli.errors import CliError, ExitCode

    monkeypatch.setattr("rackflow_cli.operations._LONGEST_LOOK_S", 0.01)
    front_end.deploys(operation("done"))
    front_end.on("GET", "instances/web", 200, INSTANCE)
    from rackflow_cli import operations

    read, away = operations.read, [CliError("away", ExitCode.UNREACHABLE)] * 2

    def flaky(*arguments: Any) -> list[dict[str, Any]]:
        if away:
            raise away.pop()
        return read(*arguments)

    monkeypatch.setattr(operations, "read", flaky)
    said = cli(*CREATE)
    assert said.code == 0
    assert said.err.startswith("the front-end does not answer; trying again\n")


def test_ctrl_c_leaves_it_running_and_says_so(front_end: FrontEnd) -> None:
    front_end.deploys(operation("running"))
    process = subprocess.Popen(
        [sys.executable, "-m", "rackflow_cli.main", *CREATE], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 20
    while not any(a.path == "operations" for a in front_end.asked):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert "it goes on without you" in err
    assert "Traceback" not in err


def test_many_are_told_briefly(front_end: FrontEnd, cli: Cli) -> None:
    ops = [{**operation("done", f"n{n}"), "id": f"id{n:03}"} for n in range(40)]
    ops[7] = {**ops[7], "state": "failed", "error": error("unreachable", "h2 is away")}
    front_end.on("POST", "instances", 202, {"request": "r", "operations": ops})
    front_end.on("GET", "operations", 200, ops)
    said = cli(*CREATE)
    assert said.code == 1
    lines = said.err.splitlines()
    assert [line for line in lines if "✓" in line] == []
    assert "39 of 40 done" in said.err
    assert len(lines) <= 4


@pytest.mark.parametrize("verb", ["start", "shutdown", "delete"])
def test_verbs_on_many_instances(front_end: FrontEnd, cli: Cli, verb: str) -> None:
    done = [operation("done", name, verb) for name in ("a", "b")]
    for name, op in zip("ab", done, strict=True):
        method, path = ("DELETE", f"instances/{name}") if verb == "delete" else ("POST", f"instances/{name}/{verb}")
        front_end.on(method, path, 202, {"request": "r", "operations": [op]})
        front_end.on("GET", f"instances/{name}", 200, {**INSTANCE, "name": name})
    front_end.on("GET", "operations", 200, done)
    grace = [] if verb == "start" else ["--grace", 5]
    said = cli("instance", verb, "a", "b", *grace, "-o", "json")
    assert said.code == 0
    shown = json.loads(said.out)
    field, wanted = ("verb", ["delete"] * 2) if verb == "delete" else ("name", ["a", "b"])
    assert [row[field] for row in shown] == wanted
    if verb == "shutdown":
        assert front_end.last("POST", "instances/a/shutdown").body == {"grace_s": 5.0}
    if verb == "delete":
        assert front_end.last("DELETE", "instances/a").query == {"grace_s": "5.0"}


def test_one_refused_does_not_stop_the_others(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("DELETE", "instances/b", 202, {"request": "r", "operations": [operation("done", "b", "delete")]})
    front_end.on("GET", "operations", 200, [operation("done", "b", "delete")])
    said = cli("instance", "delete", "a", "b")
    assert said.code == 3
    assert "error: there is no instances/a" in said.err
    assert "✓ delete b" in said.err


def test_exec_passes_output_and_exit_code_on(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("POST", "instances/web/exec", 200, {"exit_status": 7, "stdout": "out\n", "stderr": "err\n"})
    said = cli("instance", "exec", "web", "--", "sh", "-c", "echo -q --help")
    assert (said.code, said.out, said.err) == (7, "out\n", "err\n")
    assert front_end.last("POST", "instances/web/exec").body["argv"] == ["sh", "-c", "echo -q --help"]


def test_exec_needs_no_dashes_for_plain_options(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("POST", "instances/web/exec", 200, {"exit_status": 0, "stdout": "", "stderr": ""})
    assert cli("instance", "exec", "web", "ls", "-la", "/").code == 0
    assert front_end.last("POST", "instances/web/exec").body["argv"] == ["ls", "-la", "/"]


def test_ssh_goes_to_the_address_with_a_host_key_of_the_instance(
    front_end: FrontEnd, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "bin" / "ssh"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$OUT"\nexit 9\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("OUT", str(tmp_path / "argv"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    front_end.on("GET", "instances/web", 200, INSTANCE)
    assert cli("instance", "ssh", "web", "-u", "debian", "--key", "/k", "uptime", "-p").code == 9
    argv = (tmp_path / "argv").read_text().split("\n")[:-1]
    assert argv[-4:] == ["debian", "198.18.17.100", "uptime", "-p"]
    assert f"HostKeyAlias=rackflow-{INSTANCE['id']}" in argv
    assert (tmp_path / "state" / "rackflow").is_dir()


def test_ssh_without_an_address_is_told(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("GET", "instances/web", 200, {**INSTANCE, "addresses": [], "state": "pending"})
    said = cli("instance", "ssh", "web")
    assert said.code == 5
    assert "has no address (it is pending)" in said.err


def test_logs_are_data(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("GET", "instances/web/logs", 200, {"text": "one\ntwo\nthree\n"})
    assert cli("instance", "logs", "web").out == "one\ntwo\nthree\n"
    assert cli("instance", "logs", "web", "-n", 1).out == "three\n"


def test_host_enable_and_disable(front_end: FrontEnd, cli: Cli) -> None:
    for verb, said in (("enable", "enabled"), ("disable", "disabled"), ("maintenance", "is in maintenance")):
        front_end.on("POST", f"hosts/h1/{verb}", 200, {"changed": True})
        assert cli("host", verb, "h1").err == f"host h1 {said}\n"
    front_end.on("POST", "hosts/h2/disable", 200, {"changed": True})
    assert cli("host", "drain", "h2").err == "host h2 disabled\n"


def test_networks_datastores_and_clusters_are_there_at_once(front_end: FrontEnd, cli: Cli) -> None:
    for noun in ("network", "datastore", "cluster"):
        front_end.on("POST", f"{noun}s", 201, {"id": "1", "name": "n"})
        front_end.on("DELETE", f"{noun}s/n", 204, None)
    assert cli(
        "network", "create", "n", "--bridge", "br0", "--subnet", "10.0.0.0/24", "--range", "10.0.0.5-10.0.0.9",
        "--default-for", "vm",
    ).code == 0  # fmt: skip
    assert front_end.last("POST", "networks").body == {
        "name": "n", "bridge": "br0", "subnet": "10.0.0.0/24", "default_for": ["vm"],
        "ranges": [{"first": "10.0.0.5", "last": "10.0.0.9"}],
    }  # fmt: skip
    assert json.loads(cli("datastore", "create", "n", "--path", "/d", "-o", "json").out)["id"] == "1"
    assert front_end.last("POST", "datastores").body == {"name": "n", "path": "/d"}
    assert cli("cluster", "create", "n", "--cpu-overcommit", "2").err == "cluster n created\n"
    assert cli("cluster", "create", "n", "--cpu-learned-max", "8").code == 0
    assert front_end.last("POST", "clusters").body == {"name": "n", "cpu_learned_max": 8.0}
    assert cli("cluster", "create", "n", "--placement-policy", "spread").code == 0
    assert front_end.last("POST", "clusters").body == {"name": "n", "placement_policy": "spread"}
    for noun in ("network", "datastore", "cluster"):
        assert cli(noun, "delete", "n").err == f"{noun} n deleted\n"


def test_reservations_are_made_of_times(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("POST", "reservations", 201, {"id": "1", "name": "r"})
    times = ("--from", "2030-01-01T00:00:00Z", "--until", "2030-01-02T00:00:00Z")
    assert cli("reservation", "create", "r", *times, "--host", "h1", "--cpu", "4").err == "reservation r created\n"
    told = {"name": "r", "begins_at": "2030-01-01T00:00:00Z", "ends_at": "2030-01-02T00:00:00Z"}
    assert front_end.last("POST", "reservations").body == {**told, "kind": "hold", "host": "h1", "cpu": 4.0}
    assert cli("reservation", "create", "r", *times, "--cluster", "c", "--maintenance").code == 0
    assert front_end.last("POST", "reservations").body == {**told, "kind": "maintenance", "cluster": "c"}
    assert cli("reservation", "create", "r", "--from", "soon", "--until", "+2h", "--host", "h1").code == 2


def test_image_import_sends_an_absolute_path(
    front_end: FrontEnd, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    front_end.on("POST", "images", 202, {"request": "r", "operations": [operation("done", "tiny", "import")]})
    front_end.on("GET", "operations", 200, [operation("done", "tiny", "import")])
    front_end.on("GET", "images/tiny", 200, {"name": "tiny", "state": "ready"})
    assert cli("image", "import", "tiny", "a.qcow2", "--sha256", "f" * 64, "--format", "qcow2").code == 0
    assert front_end.last("POST", "images").body == {
        "name": "tiny", "source": str(tmp_path / "a.qcow2"), "sha256": "f" * 64, "format": "qcow2",
    }  # fmt: skip
    cli("image", "import", "tiny", "https://example.org/a.qcow2")
    assert front_end.last("POST", "images").body["source"] == "https://example.org/a.qcow2"
    cli("image", "import", "tiny", "backup:06h1")
    assert front_end.last("POST", "images").body["source"] == "backup:06h1"
    front_end.on("POST", "images/tiny/stage", 202, {"operations": []})
    assert cli("image", "stage", "tiny", "h1", "h2").code == 0
    assert front_end.last("POST", "images/tiny/stage").body == {"hosts": ["h1", "h2"]}


def test_operation_cancel_and_watch(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("POST", "operations/x/cancel", 202, {})
    assert cli("operation", "cancel", "x").code == 0
    front_end.on("GET", "operations", 200, [operation("done")])
    assert cli("operation", "watch", operation()["id"]).code == 0
    assert cli("operation", "watch", "nothing").code == 3
