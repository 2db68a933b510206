"""Verbs out of tables: what each sends, what is asked before something is lost, what is shown at the end."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from blueprints.change import PARAMETERS
from core.states import Verb
from rackflow_cli import words
from rackflow_cli.commands.backup import WORDS as BACKUP
from rackflow_cli.commands.disk import WORDS as DISK
from rackflow_cli.commands.instance_verbs import WORDS as INSTANCE_WORDS
from rackflow_cli.commands.nic import WORDS as NIC
from rackflow_cli.commands.snapshot import WORDS as SNAPSHOTS
from rackflow_cli.commands.verbs import expanded
from rackflow_cli.errors import CliError
from tests.unit.cli.cli_front_end import AT, INSTANCE, FrontEnd, operation
from tests.unit.cli.conftest import Cli

TABLES = (*INSTANCE_WORDS, *DISK, *NIC, *SNAPSHOTS, *BACKUP)
SPEC = {
    "name": "web", "kind": "vm", "image": "tiny", "cpu": 2.0, "memory_mib": 512, "disk_mib": None,
    "disks": [{"name": "data", "size_mib": 1024, "datastore": None}], "user_data": "#cloud-config\n", "count": None,
    "nics": [{"network": "lan", "address": "10.0.0.9", "index": None}], "ssh_keys": [], "labels": {"tier": "front"},
}  # fmt: skip
NICS = [{"index": 0, "network": "lan", "bridge": "br0", "mac": "52:54:00:00:00:01", "address": "10.0.0.9",
         "prefix_length": 24, "gateway": None}]  # fmt: skip
SNAPSHOT = {"name": "before", "disk": None, "memory": True, "created_at": AT}


@pytest.fixture
def web(front_end: FrontEnd) -> FrontEnd:
    """A front-end where every verb on `web` goes well."""
    front_end.on("GET", "instances/web", 200, {**INSTANCE, "spec": SPEC, "nics": NICS})
    front_end.on("GET", "instances/web2", 200, {**INSTANCE, "name": "web2"})
    front_end.on("GET", "operations", 200, [operation("done")])
    front_end.on("GET", "instances/web/snapshots", 200, [SNAPSHOT])
    for verb in PARAMETERS:
        front_end.on("POST", f"instances/web/{verb}", 202, {"request": "r", "operations": [operation("done")]})
    return front_end


def test_every_verb_of_the_api_has_a_command() -> None:
    assert {word.verb or word.word for word in TABLES} == {str(verb) for verb in PARAMETERS}


@pytest.mark.parametrize(("command", "verb", "body"), [
    ("instance poweroff web", "poweroff", {}),
    ("instance shutdown web", "shutdown", {}),
    ("instance shutdown web --grace 0", "shutdown", {"grace_s": 0.0}),
    ("instance reboot web --hard", "reboot", {"hard": True}),
    ("instance reboot web", "reboot", {}),
    ("instance suspend web", "suspend", {}),
    ("instance resume web", "resume", {}),
    ("instance stop web", "stop", {}),
    ("instance undeploy web --grace 3", "undeploy", {"grace_s": 3.0}),
    ("instance migrate web", "migrate", {}),
    ("instance migrate web h2 --live --bandwidth 50", "migrate", {"host": "h2", "live": True, "bandwidth_mib_s": 50}),
    ("instance migrate web --cold", "migrate", {"live": False}),
    ("instance failover web", "failover", {}),
    ("instance rename web web2", "rename", {"name": "web2"}),
    ("instance resize web --cpu 2 --memory 1GiB", "resize", {"cpu": 2.0, "memory": "1GiB"}),
    ("instance save-image web copy --disk data", "save-image", {"image": "copy", "disk": "data"}),
    ("disk attach web data=1GiB", "attach-disk", {"disk": {"name": "data", "size": "1GiB"}}),
    ("disk attach web d=1GiB --datastore x", "attach-disk", {"disk": {"name": "d", "size": "1GiB", "datastore": "x"}}),
    ("disk detach web data -y", "detach-disk", {"disk": "data"}),
    ("disk grow web root 20GiB", "grow-disk", {"disk": "root", "size": "20GiB"}),
    ("nic attach web lan=10.0.0.7", "attach-nic", {"nic": {"network": "lan", "address": "10.0.0.7"}}),
    ("nic attach web lan", "attach-nic", {"nic": {"network": "lan"}}),
    ("nic detach web 0", "detach-nic", {"nic": 0}),
    ("snapshot create web before", "snapshot", {"snapshot": "before"}),
    ("snapshot create web b --no-memory --disk data", "snapshot", {"snapshot": "b", "memory": False, "disk": "data"}),
    ("snapshot revert web before -y", "revert", {"snapshot": "before"}),
    ("snapshot delete web before -y", "drop-snapshot", {"snapshot": "before"}),
    ("backup restore web b1 -y", "revert-backup", {"backup": "b1"}),
])  # fmt: skip
def test_what_is_sent(web: FrontEnd, cli: Cli, command: str, verb: str, body: dict[str, Any]) -> None:
    said = cli(*command.split())
    assert said.code == 0, said.err
    sent = web.last("POST", f"instances/web/{verb}").body
    assert sent == body
    assert PARAMETERS[Verb(verb)].model_validate(sent)
    assert "✓ deploy web" in said.err


def test_at_the_end_the_new_name_or_the_snapshots_are_shown(web: FrontEnd, cli: Cli) -> None:
    assert json.loads(cli("instance", "rename", "web", "web2", "-o", "json").out)["name"] == "web2"
    assert json.loads(cli("snapshot", "create", "web", "before", "-o", "json").out) == [SNAPSHOT]
    assert cli("snapshot", "list", "web").out.splitlines()[1].split()[:2] == ["before", "yes"]


def test_backups(web: FrontEnd, cli: Cli) -> None:
    row = {"id": "b", "name": "b1", "instance": "web", "state": "ready", "size_bytes": 1048576, "parent": None,
           "created_at": AT, "verified_at": None, "error": None}  # fmt: skip
    web.on("GET", "instances/web/backups", 200, [row])
    web.on("GET", "backups", 200, [row])
    assert cli("backup", "create", "web", "--name", "b1", "--full", "--keep", 7, "-o", "name").out == "b1\n"
    assert web.last("POST", "instances/web/backup").body == {"backup": "b1", "incremental": False, "keep": 7}
    assert cli("backup", "list").out.splitlines()[1].split()[:5] == ["b1", "web", "ready", "1", "MiB"]
    cli("backup", "list", "web")
    assert web.last("GET", "backups").query == {"instance": "web"}
    gone = {"request": "r", "operations": [operation("done", "b1", "drop-backup")]}
    web.on("DELETE", "backups/b", 202, gone)
    web.on("POST", "backups/b/test", 202, gone)
    web.on("GET", "operations", 200, gone["operations"])
    assert cli("backup", "verify", "web", "b1").code == 0
    assert web.last("POST", "backups/b/test")
    assert cli("backup", "delete", "web", "b1", "-y").code == 0
    assert web.last("DELETE", "backups/b")
    assert cli("backup", "verify", "web", "none").code == 3


def test_disks_and_nics_are_listed(web: FrontEnd, cli: Cli) -> None:
    assert [line.split()[0] for line in cli("disk", "list", "web").out.splitlines()] == ["NAME", "root", "data"]
    assert cli("nic", "list", "web").out.splitlines()[1].split()[:3] == ["0", "lan", "10.0.0.9"]
    assert cli("nic", "list", "web", "-o", "name").out == "0\n"


@pytest.mark.parametrize("command", [
    "disk detach web data", "snapshot revert web before", "snapshot delete web before", "backup restore web b1",
    "backup delete web b1",
    "instance delete web", "host fence h1",
])  # fmt: skip
def test_a_person_is_asked_before_something_is_lost(web: FrontEnd, command: str) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "rackflow_cli.main", *command.split()],
        stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(slave)
    os.write(master, b"n\n")
    _, err = process.communicate(timeout=30)
    os.close(master)
    assert process.returncode == 1
    assert "[y/N]" in err
    assert [asked for asked in web.asked if asked.method != "GET"] == []


@pytest.mark.parametrize("command", ["disk attach web data", "disk attach web =1GiB", "instance start job-[3-1]"])
def test_wrong_words_are_usage_errors(web: FrontEnd, cli: Cli, command: str) -> None:
    assert cli(*command.split()).code == 2
    assert web.asked == []


def test_ranges_of_names() -> None:
    assert expanded(["a", "job-[9-11]", "a", "x[1-1]y"]) == ["a", "job-9", "job-10", "job-11", "x1y"]
    with pytest.raises(CliError):
        expanded(["x[1-20000]"])


def test_clone_is_an_image_and_an_instance_that_waits_for_it(web: FrontEnd, cli: Cli) -> None:
    web.on("POST", "instances", 202, {"request": "r", "operations": [operation("done", "web2")]})
    done = [operation("done"), operation("done", "web2")]
    web.on("GET", "operations", 200, [{**one, "id": f"id{n}"} for n, one in enumerate(done)])
    for n, path in enumerate(("instances/web/save-image", "instances")):
        web.on("POST", path, 202, {"request": "r", "operations": [{**done[n], "id": f"id{n}"}]})
    assert json.loads(cli("instance", "clone", "web", "web2", "-o", "json").out)["name"] == "web2"
    assert web.last("POST", "instances/web/save-image").body == {"image": "web2-image"}
    assert web.last("POST", "instances").body == {
        "name": "web2", "image": "web2-image", "kind": "vm", "cpu": 2.0, "memory_mib": 512, "labels": {"tier": "front"},
        "nics": [{"network": "lan"}], "user_data": "#cloud-config\n",
    }  # fmt: skip


def test_hold_release_and_mark(web: FrontEnd, cli: Cli) -> None:
    web.on("POST", "instances/web/hold", 200, {"changed": True})
    web.on("POST", "instances/web/release", 200, {"changed": False})
    web.on("POST", "instances/web/mark", 200, {"changed": True})
    assert cli("instance", "hold", "web").err == "instance web is on hold\n"
    assert cli("instance", "release", "web").err == "instance web: nothing to change\n"
    assert cli("instance", "mark", "web", "off", "--reason", "I looked").code == 0
    assert web.last("POST", "instances/web/mark").body == {"state": "off", "reason": "I looked"}
    web.on("POST", "instances", 202, {"request": "r", "operations": [operation("pending")]})
    said = cli("instance", "create", "db", "--image", "tiny", "--hold")
    assert (said.code, web.last("POST", "instances").query) == (0, {"hold": "true"})
    assert not [asked for asked in web.asked if asked.path == "operations"]


def test_retry_and_abandon_are_waited_for(web: FrontEnd, cli: Cli) -> None:
    for word in ("retry", "abandon"):
        op = operation("pending")
        web.on("POST", f"operations/{op['id']}/{word}", 200, op)
        said = cli("operation", word, op["id"])
        assert (said.code, "✓ deploy web" in said.err) == (0, True)
        assert json.loads(cli("operation", word, op["id"], "--no-wait", "-o", "json").out)[0]["state"] == "pending"


def test_schedules(web: FrontEnd, cli: Cli) -> None:
    row = {"id": "s1", "instance": "web", "verb": "backup", "parameters": {"keep": 7}, "every_s": 86400,
           "after_start_s": None, "next_at": AT, "last_at": None, "last": None, "enabled": True}  # fmt: skip
    web.on("POST", "schedules", 201, row)
    web.on("GET", "schedules", 200, [row])
    web.on("DELETE", "schedules/s1", 200, {"deleted": "s1"})
    web.on("PATCH", "schedules/s1", 200, row)
    said = cli("schedule", "add", "web", "backup", "-p", "keep=7", "-p", "backup=b", "--every", "1d", "--at",
               "2030-01-01T00:00:00+01:00")  # fmt: skip
    assert said.err == "schedule s1: backup web\n"
    assert web.last("POST", "schedules").body == {
        "instance": "web", "verb": "backup", "parameters": {"keep": 7, "backup": "b"}, "every_s": 86400,
        "at": "2029-12-31T23:00:00Z",
    }  # fmt: skip
    cli("schedule", "add", "web", "stop", "--after-start", "8h")
    assert web.last("POST", "schedules").body == {"instance": "web", "verb": "stop", "after_start_s": 28800}
    assert cli("schedule", "list").out.splitlines()[1].split()[:5] == ["s1", "web", "backup", "keep=7", "1d00h"]
    assert cli("schedule", "list", "-o", "name").out == "s1\n"
    for word, enabled in (("enable", True), ("disable", False)):
        assert cli("schedule", word, "s1").err == f"schedule s1 {word}d\n"
        assert web.last("PATCH", "schedules/s1").body == {"enabled": enabled}
    assert cli("schedule", "remove", "s1").err == "schedule s1 removed\n"
    for wrong in (("--every", "often"), ("--at", "soon"), ("--at", "+soon")):
        assert cli("schedule", "add", "web", "stop", *wrong).code == 2


@pytest.mark.parametrize(
    ("text", "found"), [("45", 45), ("90s", 90), ("15m", 900), ("1h30m", 5400), ("1d", 86400), ("2w", 1209600)]
)
def test_spans_of_time(text: str, found: int) -> None:
    assert words.seconds_of(text) == found


@pytest.mark.parametrize("text", ["", "x", "1y", "h", "-5s", "1.5h"])
def test_no_spans_of_time(text: str) -> None:
    with pytest.raises(ValueError, match="no span"):
        words.seconds_of(text)


def test_moments() -> None:
    assert words.moment_of("2030-06-01T12:00:00Z") == "2030-06-01T12:00:00Z"
    local = datetime(2030, 6, 1, 12).astimezone(UTC)
    assert datetime.fromisoformat(words.moment_of("2030-06-01T12:00")) == local
    later = datetime.fromisoformat(words.moment_of("+2h")) - datetime.now(UTC)
    assert 7190 < later.total_seconds() <= 7200


def test_configuring_hosts(web: FrontEnd, cli: Cli) -> None:
    done = {"request": "r", "operations": [operation("done", "h1", "configure")]}
    web.on("GET", "operations", 200, done["operations"])
    web.on("POST", "hosts/h1/configure", 202, done)
    plan = {"host": "h1", "actions": ["install lxd"], "notes": ["no IOMMU is on"], "complete": False}
    web.on("GET", "hosts/h1/configuration", 200, plan)
    shown = cli("host", "configure", "h1", "--dry-run")
    assert (shown.code, "install lxd" in shown.out, "no IOMMU is on" in shown.out) == (0, True, True)
    assert "more may show" in shown.err
    assert json.loads(cli("host", "configure", "h1", "--dry-run", "-o", "json").out) == [plan]
    assert {one.method for one in web.asked} == {"GET"}
    assert cli("host", "configure", "h1").code == 0
    assert web.last("POST", "hosts/h1/configure").body == {}
    web.on("GET", "hosts/h1/configuration", 200, {**plan, "actions": [], "notes": [], "complete": True})
    assert "is as it was told to be" in cli("host", "configure", "h1", "--dry-run").err


def test_hosts(web: FrontEnd, cli: Cli) -> None:
    done = {"request": "r", "operations": [operation("done", "h1", "evacuate")]}
    web.on("GET", "operations", 200, done["operations"])
    for word in ("evacuate", "fence", "adopt"):
        web.on("POST", f"hosts/h1/{word}", 202, done)
    assert cli("host", "evacuate", "h1").code == 0
    assert web.last("POST", "hosts/h1/evacuate").body == {}
    cli("host", "evacuate", "h1", "--cold")
    assert web.last("POST", "hosts/h1/evacuate").body == {"live": False}
    cli("host", "evacuate", "h1", "--parallel", 4, "--then", "maintenance")
    assert web.last("POST", "hosts/h1/evacuate").body == {"parallel": 4, "then": "maintenance"}
    assert cli("host", "fence", "h1", "-y").code == 0
    assert web.last("POST", "hosts/h1/fence").body == {}
    cli("host", "fence", "h1", "-y", "--confirmed")
    assert web.last("POST", "hosts/h1/fence").body == {"confirmed": True}
    assert cli("host", "adopt", "h1", "old=new", "db").code == 0
    assert web.last("POST", "hosts/h1/adopt").body == {"instances": ["old", "db"], "names": {"old": "new"}}
    found = {"name": "old", "kind": "vm", "power": "running", "cpu": 2, "memory_mib": 512,
             "disks": [{"name": "root"}], "nics": [], "problems": ["it has a floppy"]}  # fmt: skip
    web.on("GET", "hosts/h1/foreign", 200, [found])
    assert "it has a floppy" in cli("host", "foreign", "h1").out
    web.on("GET", "hosts/h1/foreign", 200, [])
    assert cli("host", "foreign", "h1").err == "no foreign instances\n"


def test_drift(web: FrontEnd, cli: Cli) -> None:
    row = {"id": "d1", "subject": "instance/x", "host": "h1", "kind": "unknown", "state": "open", "policy": "report",
           "recorded": {}, "seen": {}, "since_at": AT}  # fmt: skip
    web.on("GET", "drift", 200, [row])
    web.on("GET", "drift/d1", 200, row)
    web.on("PATCH", "drift/d1", 200, {**row, "policy": "adopt"})
    cli("drift", "list", "--state", "all", "--host", "h1")
    assert web.last("GET", "drift").query == {"state": "all", "host": "h1"}
    assert json.loads(cli("drift", "show", "d1", "-o", "json").out) == row
    assert cli("drift", "set-policy", "d1", "adopt").err == "drift d1: adopt\n"
    assert web.last("PATCH", "drift/d1").body == {"policy": "adopt"}


def test_completion_of_an_instances_snapshots(web: FrontEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_RACKFLOW_COMPLETE": "complete_bash", "COMP_WORDS": "rackflow snapshot revert web b",
                        "COMP_CWORD": "4"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, "-m", "rackflow_cli.main"], capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["before"], "")
