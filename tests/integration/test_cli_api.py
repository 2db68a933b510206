"""The command line against the real API and a worker over simulated hosts: only Prefect and SSH are left out."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn

from analytics.client import AnalyticsClient
from api.app import create_app
from control import access
from core.errors import Unreachable
from drivers.fake_world import world
from rackflow_cli.main import run
from tasks.runtime import set_runtime
from tests.integration.line import Line, make_line, without_prefect

AT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class FrontEnd:
    """API and worker in one thread. paused: the worker does nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.line, self.url, self.token = folder, None, "", ""
        self.paused = False
        self._ready, self._stop = threading.Event(), threading.Event()
        self._broken: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    line: Line | None

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(60)
        if self._broken:
            raise self._broken

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._broken = error
            self._ready.set()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self._broken:
            raise self._broken

    async def _serve(self) -> None:
        with without_prefect():
            self.line = line = await make_line(self.folder)
            line.runtime.claim_until = time.monotonic() + 3600  # as the claim in the record
            self.token = line.store.write_now(access.ensure_admin) or ""
            client = AnalyticsClient(line.settings.paths.run_dir / "analytics.sock")
            app = create_app(line.settings, line.store, client, lambda: None)
            server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
            serving = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.02)
            self.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
            self._ready.set()
            while not self._stop.is_set():
                await asyncio.sleep(0.05)
                if not self.paused:
                    try:
                        await line.work()
                    except Exception as error:  # a real worker goes on, and so does this one; `stop` tells
                        self._broken = error
            server.should_exit = True
            await serving
            await line.runtime.pool.close()
            await line.store.close()


@pytest.fixture(scope="module")
def front_end(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontEnd]:
    made = FrontEnd(tmp_path_factory.mktemp("cloud"))
    made.start()
    yield made
    made.stop()
    set_runtime(None)
    world.reset()


Cli = Callable[..., Said]


@pytest.fixture
def cli(front_end: FrontEnd, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    monkeypatch.setenv("RACKFLOW_URL", front_end.url)
    monkeypatch.setenv("RACKFLOW_TOKEN", front_end.token)

    def call(*arguments: Any) -> Said:
        capsys.readouterr()
        code = run([str(a) for a in arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        assert "defect of rackflow" not in said.err
        return Said(code, said.out, said.err)

    yield call
    front_end.paused = False
    names = call("instance", "list", "-o", "name").out.split()
    if names:
        assert call("instance", "delete", *names).code == 0


def test_create_list_show_delete(cli: Cli) -> None:
    made = cli("instance", "create", "web", "--image", "vm", "--memory", "256MiB", "-l", "tier=front", "-o", "json")
    assert made.code == 0, made.err
    assert "✓ deploy web on f" in made.err
    (listed,) = cli("instance", "list", "-o", "json").json
    assert listed.items() >= {"name": "web", "kind": "vm", "state": "running", "memory_mib": 256, "cpu": 1.0}.items()
    assert AT.fullmatch(listed["created_at"])
    assert re.fullmatch(r"10\.9\.\d+\.\d+", listed["addresses"][0])
    shown = cli("instance", "show", "web", "-o", "json").json
    assert shown["spec"]["labels"] == {"tier": "front"}
    assert made.json == shown
    assert cli("instance", "list", "-l", "tier=back", "-o", "json").json == []
    assert cli("instance", "list").out.splitlines()[1].split()[:4] == ["web", "vm", "running", shown["host"]]
    deleted = cli("instance", "delete", "web", "-o", "json")
    assert (deleted.code, deleted.json[0]["state"]) == (0, "done")
    assert cli("instance", "show", "web").code == 3


def test_operation_has_its_steps(cli: Cli) -> None:
    cli("instance", "create", "web", "--image", "box")
    (op, *_) = [o for o in cli("operation", "list", "-o", "json").json if o["verb"] == "deploy"]
    shown = cli("operation", "show", op["id"], "-o", "json").json
    assert set(shown) >= {"id", "verb", "state", "subject", "steps"}
    assert [step["name"] for step in shown["steps"]] == ["place", "image", "volumes", "define", "start"]
    for step in shown["steps"]:
        assert set(step) >= {"sequence", "name", "host", "state", "attempt", "changed", "error"}
        assert AT.fullmatch(step["started_at"])
        assert AT.fullmatch(step["finished_at"])
    assert cli("operation", "watch", op["id"]).code == 0


def test_many_at_once_start_and_stop(cli: Cli) -> None:
    made = cli("instance", "create", "job", "--image", "box", "--memory", "64MiB", "--count", 5, "-o", "json")
    assert [row["state"] for row in made.json] == ["running"] * 5
    off = cli("instance", "shutdown", "job-[1-2]", "--grace", "1", "-o", "json")
    assert [row["state"] for row in off.json] == ["off", "off"], off.err
    assert cli("instance", "start", "job-1", "-o", "json").json["state"] == "running"
    assert cli("instance", "list", "--state", "off", "-o", "name").out == "job-2\n"


def test_refusals_have_their_exit_codes(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("instance", "create", "web", "--image", "vm")
    taken = cli("instance", "create", "web", "--image", "vm")
    assert taken.code == 5
    assert taken.err.startswith("error: instance web exists already")
    wrong = cli("instance", "create", "Web_1", "--image", "vm", "--memory", "-1")
    assert wrong.code == 2
    assert "name: must be lower case" in wrong.err
    assert "memory: a size cannot be negative" in wrong.err
    assert cli("instance", "create", "db", "--image", "none").code == 3
    assert cli("instance", "start", "none").code == 3
    for token in ("wrong", ""):
        with monkeypatch.context() as patch:
            patch.setenv("RACKFLOW_TOKEN", token)
            denied = cli("instance", "list")
        assert denied.code == 4
        assert "what to do:" in denied.err


def test_what_fits_nowhere_is_explained(cli: Cli) -> None:
    said = cli("instance", "create", "huge", "--image", "vm", "--memory", "900GiB")
    assert said.code == 6
    assert "memory" in said.err
    assert "f0: memory:" in said.err
    assert "would fit on f" in said.err
    told = cli("explain", "huge")
    assert told.out.startswith("huge fitted nowhere")
    assert "smallest change:" in told.out


def test_where_it_was_placed_is_explained(cli: Cli) -> None:
    host = cli("instance", "create", "web", "--image", "vm", "-o", "json").json["host"]
    assert cli("explain", "web").out.startswith(f"web was placed on {host}")
    told = cli("explain", "web", "-o", "json").json
    assert {entry["host"] for entry in told["hosts"]} == {"f0", "f1", "f2"}


def test_no_wait_and_timeout(cli: Cli, front_end: FrontEnd) -> None:
    front_end.paused = True
    (op,) = cli("instance", "create", "web", "--image", "vm", "--no-wait", "-o", "json").json
    assert op["state"] == "pending"
    late = cli("operation", "watch", op["id"], "--timeout", "0.3")
    assert late.code == 7
    assert op["id"] in late.err
    assert cli("operation", "cancel", op["id"]).code == 0
    assert cli("operation", "show", op["id"], "-o", "json").json["state"] == "cancelled"
    assert cli("operation", "watch", op["id"]).code == 1


def test_exec_and_logs(cli: Cli) -> None:
    cli("instance", "create", "web", "--image", "box")
    ran = cli("instance", "exec", "web", "--", "echo", "hello")
    assert ran.code == 0, ran.err
    logs = cli("instance", "logs", "web")
    assert logs.code == 0, logs.err


def test_nouns_that_are_there_at_once(cli: Cli) -> None:
    assert cli("cluster", "create", "east", "--cpu-overcommit", "2").code == 0
    assert cli("datastore", "create", "fast", "--path", "/srv/fast", "--cluster", "east").code == 0
    made = cli("network", "create", "wan", "--bridge", "br1", "--addressing", "dhcp", "-o", "json")
    assert made.json["addressing"] == "dhcp"
    assert cli("network", "create", "bad", "--bridge", "br1", "--subnet", "10.0.0.0/24").code == 2
    assert cli("cluster", "delete", "east").code == 5
    for noun, name in (("datastore", "fast"), ("network", "wan"), ("cluster", "east")):
        assert name in cli(noun, "list").out
        assert cli(noun, "show", name, "-o", "json").json["name"] == name
        assert cli(noun, "delete", name).code == 0
        assert cli(noun, "show", name).code == 3


def test_hosts(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = cli("host", "list", "-o", "json").json
    assert {(row["name"], row["state"]) for row in rows} == {("f0", "ready"), ("f1", "ready"), ("f2", "ready")}
    assert cli("host", "disable", "f0").code == 0
    assert cli("host", "show", "f0", "-o", "json").json["state"] == "disabled"
    made = cli("instance", "create", "web", "--image", "vm", "--host", "f0")
    assert made.code in (6, 7)
    assert cli("host", "enable", "f0").code == 0

    async def silent(address: str, port: int = 22, timeout_s: float = 5) -> Any:
        raise Unreachable(f"{address} does not answer", f"host/{address}", fix="is it on?")

    monkeypatch.setattr("drivers.transport.hostkey.scan_host_key", silent)
    away = cli("host", "enroll", "10.99.9.9", "--yes")
    assert away.code == 1
    assert "10.99.9.9 does not answer" in away.err


def test_images(cli: Cli, front_end: FrontEnd, tmp_path: Path) -> None:
    images = {row["name"]: row for row in cli("image", "list", "-o", "json").json}
    assert {name: row["state"] for name, row in images.items()} == {"vm": "ready", "box": "ready"}
    missing = cli("image", "import", "gone", tmp_path / "gone.qcow2")
    assert missing.code in (1, 3)
    assert "gone.qcow2" in missing.err
    wrong = cli("image", "import", "wrong", images["vm"]["source"], "--sha256", "0" * 64)
    assert wrong.code == 1
    assert "checksum" in wrong.err or "sha256" in wrong.err
    staged = cli("image", "stage", "vm", "f1", "-o", "json")
    assert staged.code == 0, staged.err
    assert "f1" in [copy["host"] for copy in staged.json["copies"]]


def test_blueprints(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "web.yaml"
    text = "instances:\n- {name: web, image: vm, memory: 128MiB}\n- {name: job, image: box, memory: 64MiB, count: 3}\n"
    file.write_text(text)
    plan = cli("plan", "-f", file)
    assert plan.code == 0, plan.err
    assert len(re.findall(r"create +instance +\S+ +f\d", plan.out)) == 4
    assert cli("instance", "list", "-o", "json").json == []
    first = cli("apply", "-f", file)
    assert first.code == 0, first.err
    assert first.err.count("✓ deploy") == 4
    again = cli("apply", "-f", file)
    assert (again.code, again.err) == (0, "4 things unchanged\n")
    file.write_text(text.replace("count: 3", "count: 1").replace("memory: 128MiB", "memory: 128MiB, labels: {a: b}"))
    fewer = cli("apply", "-f", file)
    assert fewer.code == 0
    assert "~ instance web: labels" in fewer.err
    assert "? instance job-3" in fewer.err
    pruned = cli("apply", "-f", file, "--prune")
    assert pruned.code == 0, pruned.err
    assert sorted(cli("instance", "list", "-o", "name").out.split()) == ["job-1", "web"]
    file.write_text(text.replace("128MiB", "256MiB"))
    differs = cli("apply", "-f", file)
    assert differs.code == 5
    assert "! instance web: memory" in differs.err
    gone = cli("delete", "-f", file, "--yes")
    assert gone.code == 0, gone.err
    assert cli("instance", "list", "-o", "json").json == []


def test_history_that_is_away_is_told(cli: Cli) -> None:
    cli("instance", "create", "web", "--image", "box")
    assert cli("capacity", "-o", "json").json[0]["cpu_reserved"] >= 0
    for command in (("history", "web"), ("query", "SELECT 1")):
        said = cli(*command)
        assert said.code == 1
        assert said.err.startswith("error: ")


def test_drift_and_reconcile(cli: Cli) -> None:
    assert cli("reconcile").code == 0
    assert cli("drift", "list", "-o", "json").json == []


@pytest.mark.parametrize("command", ["instance", "host", "image", "network", "datastore", "cluster", "operation"])
def test_every_list_is_drawn(cli: Cli, command: str) -> None:
    for form in ("table", "wide", "yaml", "name"):
        assert cli(command, "list", "-o", form).code == 0


def test_every_way_to_rest_and_back(cli: Cli) -> None:
    cli("instance", "create", "web", "--image", "vm", "--memory", "128MiB")
    for word, state, back in (
        ("suspend", "suspended", "resume"), ("stop", "stopped", "start"), ("undeploy", "undeployed", "resume"),
        ("shutdown", "off", "start"), ("poweroff", "off", "start"),
    ):  # fmt: skip
        rested = cli("instance", word, "web", "-o", "json")
        assert (rested.code, rested.json["state"]) == (0, state), rested.err
        assert bool(rested.json["host"]) is (state in ("suspended", "off"))
        again = cli("instance", back, "web", "-o", "json")
        assert (again.code, again.json["state"]) == (0, "running"), again.err
    assert cli("instance", "reboot", "web", "--hard").code == 0
    refused = cli("instance", "failover", "none")
    assert refused.code == 3


def test_changes_of_what_runs(cli: Cli) -> None:
    first = cli("instance", "create", "web", "--image", "vm", "--memory", "128MiB", "-o", "json").json
    moved = cli("instance", "migrate", "web", "-o", "json")
    assert (moved.code, moved.json["host"] != first["host"]) == (0, True), moved.err
    assert cli("instance", "resize", "web", "--memory", "256MiB", "-o", "json").json["memory_mib"] == 256
    assert cli("disk", "attach", "web", "data=64MiB").code == 0
    assert cli("disk", "grow", "web", "data", "128MiB").code == 0
    disks = {row["name"]: row["size_mib"] for row in cli("disk", "list", "web", "-o", "json").json}
    assert disks["data"] == 128
    assert cli("disk", "detach", "web", "data", "--yes").code == 0
    assert cli("nic", "attach", "web", "lan").code == 0
    assert [row["index"] for row in cli("nic", "list", "web", "-o", "json").json] == [0, 1]
    assert cli("nic", "detach", "web", 1).code == 0
    renamed = cli("instance", "rename", "web", "web2", "-o", "json")
    assert (renamed.code, renamed.json["id"]) == (0, first["id"]), renamed.err
    assert cli("instance", "show", "web").code == 3


def test_snapshots_backups_and_clones(cli: Cli) -> None:
    cli("instance", "create", "web", "--image", "vm", "--memory", "128MiB", "-l", "tier=front")
    assert cli("snapshot", "create", "web", "before", "-o", "name").out == "before\n"
    assert cli("snapshot", "create", "web", "before").code == 5
    assert cli("snapshot", "revert", "web", "before", "--yes").code == 0
    assert cli("snapshot", "delete", "web", "before", "--yes").code == 0
    assert cli("snapshot", "list", "web", "-o", "json").json == []
    made = cli("backup", "create", "web", "--name", "b1", "-o", "json")
    assert [row["state"] for row in made.json] == ["ready"], made.err
    assert cli("backup", "restore", "web", "b1", "--yes").code == 0
    cloned = cli("instance", "clone", "web", "twin", "-o", "json")
    assert cloned.code == 0, cloned.err
    assert (cloned.json["state"], cloned.json["image"]) == ("running", "twin-image")
    assert cloned.json["labels"] == {"tier": "front"}
    assert "twin-image" in cli("image", "list", "-o", "name").out


def test_hold_release_and_schedules(cli: Cli) -> None:
    cli("instance", "create", "web", "--image", "box", "--hold")
    assert cli("instance", "show", "web", "-o", "json").json["state"] == "on-hold"
    assert cli("schedule", "add", "web", "shutdown", "--every", "1d", "-p", "grace_s=5").code == 0
    (row,) = cli("schedule", "list", "web", "-o", "json").json
    assert (row["verb"], row["parameters"], row["every_s"]) == ("shutdown", {"grace_s": 5.0}, 86400)
    assert cli("schedule", "add", "web", "zebra", "--every", "1d").code == 2
    assert cli("schedule", "remove", row["id"]).code == 0
    assert cli("instance", "release", "web").code == 0
    newest = cli("operation", "list", "--subject", "web", "--verb", "deploy", "--limit", 1, "-o", "json")
    op = newest.json[0]["id"]
    assert cli("operation", "watch", op).code == 0
    assert cli("instance", "show", "web", "-o", "json").json["state"] == "running"
    assert cli("operation", "retry", op).code == 5


def test_foreign_instances_are_seen(cli: Cli) -> None:
    world.hosts["f0"].add_foreign("old")
    try:
        found = cli("host", "foreign", "f0", "-o", "json")
        assert ("old", []) in [(row["name"], row["problems"]) for row in found.json], found.err
    finally:
        del world.hosts["f0"].instances["old"]


def test_looks_that_went_well_are_not_in_the_way(cli: Cli) -> None:
    assert cli("reconcile").code == 0

    def verbs(*words: str) -> set[str]:
        return {row["verb"] for row in cli("operation", "list", "-o", "json", *words).json}

    assert "reconcile" not in verbs()
    assert "reconcile" in verbs("--all")
    assert verbs("--verb", "reconcile") == {"reconcile"}
