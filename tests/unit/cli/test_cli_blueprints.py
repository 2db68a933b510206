"""apply, plan and delete of whole blueprints."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.cli_front_end import FrontEnd, error, operation
from tests.unit.cli.conftest import Cli

NOUNS = ("clusters", "datastores", "networks", "images", "hosts", "instances")
NONE: dict[str, list[Any]] = {"create": [], "update": [], "unchanged": [], "delete": [], "differs": []}


def plan(operations: list[Any] | None = None, **nouns: dict[str, Any]) -> dict[str, Any]:
    """Return a plan as the API shows it."""
    said: dict[str, Any] = {noun: {**NONE, **nouns.get(noun, {})} for noun in NOUNS}
    return {"dry_run": False, **said, "surplus": [], "operations": operations or [], "placements": []}


@pytest.fixture
def web(tmp_path: Path) -> Path:
    file = tmp_path / "web.yaml"
    file.write_text("instances:\n- {name: web, image: tiny, count: 2, memory: 1GiB}\n")
    return file


def test_apply_sends_what_was_asked_tells_and_waits(front_end: FrontEnd, cli: Cli, web: Path) -> None:
    done = operation("done", "web-1")
    made, labelled = {"create": ["web-1"], "unchanged": ["web-2"]}, {"update": [{"name": "h1", "fields": ["labels"]}]}
    front_end.on("POST", "apply", 200, plan([done], instances=made, hosts=labelled))
    front_end.on("GET", "operations", 200, [done])
    said = cli("apply", "-f", web, "--prune")
    assert said.code == 0
    assert front_end.last("POST", "apply").body == {
        "blueprint": {"instances": [{"name": "web", "image": "tiny", "count": 2, "memory": 1024}]},
        "prune": True, "dry_run": False,
    }  # fmt: skip
    assert said.err.splitlines()[:3] == ["~ host h1: labels", "+ instance web-1", "1 thing unchanged"]
    assert said.err.splitlines()[3].startswith("✓ deploy web-1")


def test_apply_again_does_nothing(front_end: FrontEnd, cli: Cli, web: Path) -> None:
    front_end.on("POST", "apply", 200, plan(instances={"unchanged": ["web-1", "web-2"]}))
    said = cli("apply", "-f", web)
    assert (said.code, said.out, said.err) == (0, "", "2 things unchanged\n")


def test_what_cannot_be_changed_in_place_is_a_conflict(front_end: FrontEnd, cli: Cli, web: Path) -> None:
    differs = {"name": "web-1", "fields": ["cpu"], "needs": "to be deleted and made again"}
    front_end.on("POST", "apply", 200, {**plan(instances={"differs": [differs]}), "surplus": ["web-3"]})
    said = cli("apply", "-f", web)
    assert said.code == 5
    assert "! instance web-1: cpu cannot change in place; it needs to be deleted and made again" in said.err
    assert "? instance web-3: beyond its count; --prune deletes it" in said.err
    assert "rackflow delete instance/web-1" in said.err


def test_a_failed_operation_is_the_exit_code(front_end: FrontEnd, cli: Cli, web: Path) -> None:
    failed = operation("failed", "web-1", error=error("no-fit", "no host can hold it"))
    front_end.on("POST", "apply", 200, plan([failed], instances={"create": ["web-1"]}))
    front_end.on("GET", "operations", 200, [failed])
    assert cli("apply", "-f", web).code == 6


def test_a_wrong_blueprint_is_told_by_line_and_sends_nothing(front_end: FrontEnd, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("instances:\n- name: web\n  image: tiny\n  memry: 5\n- name: web\n  image: tiny\n  cpu: -1\n")
    for verb in ("apply", "plan", "delete"):
        said = cli(verb, "-f", file)
        assert said.code == 2
        assert said.err.splitlines() == [
            "error: the blueprint is not valid: 3 errors",
            f"  {file}:4: instances[web].memry: is not a known field; did you mean 'memory'?",
            f"  {file}:5: instances[1].name: the name 'web' is used twice (first on line 2)",
            f"  {file}:7: instances[web].cpu: must be more than 0, found -1",
            "what to do: correct it and try again; `rackflow schema blueprint` shows all fields",
        ]
    assert front_end.asked == []


def test_a_missing_file_and_none_are_usage(front_end: FrontEnd, cli: Cli, tmp_path: Path) -> None:
    said = cli("apply", "-f", tmp_path / "none.yaml")
    assert said.code == 2
    assert "No such file" in said.err
    assert cli("apply").code == 2


def test_plan_shows_where_and_why_not(front_end: FrontEnd, cli: Cli, web: Path) -> None:
    why = error("no-fit", "no host of this cloud can hold web-2")
    found = plan(instances={"create": ["web-1", "web-2"]})
    found["placements"] = [
        {"name": "web-1", "host": "h1", "notes": [], "error": None},
        {"name": "web-2", "host": None, "notes": [], "error": why},
    ]
    front_end.on("POST", "plan", 200, found)
    said = cli("plan", "-f", web)
    assert said.code == 0
    assert [line.split()[:4] for line in said.out.splitlines()] == [
        ["ACTION", "NOUN", "NAME", "WHERE"],
        ["create", "instance", "web-1", "h1"],
        ["create", "instance", "web-2", "-"],
    ]  # fmt: skip
    assert said.out.rstrip().endswith("no host of this cloud can hold web-2")
    assert json.loads(cli("plan", "-f", web, "-o", "json").out) == found
    assert cli("plan", "-f", web, "-o", "name").out == "web-1\nweb-2\n"


def test_plan_and_dry_run_change_nothing(front_end: FrontEnd, cli: Cli, web: Path) -> None:
    front_end.on("POST", "plan", 200, plan())
    front_end.on("POST", "apply", 200, plan(instances={"create": ["web-1"]}))
    assert cli("plan", "-f", web).err == "nothing to do: all is as the blueprint says\n"
    assert "web-1" in cli("apply", "-f", web, "--dry-run").out
    assert front_end.last("POST", "apply").body["dry_run"] is True


def test_new_hosts_need_their_key_accepted_others_keep_theirs(front_end: FrontEnd, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text(
        "hosts:\n- {name: new, address: 10.0.0.1, port: 23}\n- {name: old, address: 10.0.0.2}\n"
        "- {name: sure, address: 10.0.0.3, fingerprint: 'SHA256:mine'}\n"
    )
    front_end.on("GET", "hosts/old", 200, {"name": "old", "spec": {"fingerprint": "SHA256:old"}})
    front_end.on("GET", "hosts/scan", 200, {"algorithm": "ssh-ed25519", "public": "", "fingerprint": "SHA256:new"})
    front_end.on("POST", "apply", 200, plan())
    refused = cli("apply", "-f", file)
    assert refused.code == 2
    assert "10.0.0.1:23" in refused.err
    assert cli("apply", "-f", file, "--yes").code == 0
    sent = front_end.last("POST", "apply").body["blueprint"]["hosts"]
    assert [host["fingerprint"] for host in sent] == ["SHA256:new", "SHA256:old", "SHA256:mine"]


def test_delete_goes_from_users_to_what_they_use(front_end: FrontEnd, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(
        "clusters: [{name: default}, {name: east}]\nnetworks: [{name: lan, bridge: br0, addressing: dhcp}]\n"
        "hosts: [{name: h1, address: 10.0.0.1}]\nimages: [{name: tiny, source: /t}]\n"
        "instances: [{name: web, image: tiny, count: 2}]\ndatastores: [{name: local, path: /d}]\n"
    )
    gone = operation("done", "web-1", "delete")
    front_end.on("DELETE", "instances/web-1", 202, {"operations": [gone]})
    front_end.on("DELETE", "images/tiny", 202, {"operations": [gone]})
    front_end.on("DELETE", "hosts/h1", 202, {"operations": [gone]})
    front_end.on("GET", "operations", 200, [gone])
    for path in ("networks/lan", "clusters/east"):
        front_end.on("DELETE", path, 200, {"deleted": path})
    said = cli("delete", "-f", file, "--yes")
    assert said.code == 0
    assert [a.path for a in front_end.asked if a.method == "DELETE"] == [
        "instances/web-1", "instances/web-2", "images/tiny", "networks/lan", "hosts/h1", "clusters/east",
    ]  # fmt: skip
    assert "instance web-2 is not there" in said.err
    assert "network lan deleted" in said.err


def test_delete_tells_what_cannot_go_and_goes_on(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("DELETE", "networks/lan", 409, error("conflict", "network lan is in use"))
    front_end.on("DELETE", "clusters/east", 200, {"deleted": "east"})
    said = cli("delete", "network/lan", "clusters/east", "--yes")
    assert said.code == 5
    assert "error: network lan is in use" in said.err
    assert "cluster east deleted" in said.err


@pytest.mark.parametrize("target", ["web", "instance/", "pod/web"])
def test_delete_needs_noun_and_name(front_end: FrontEnd, cli: Cli, target: str) -> None:
    assert cli("delete", target).code == 2


def test_blueprint_from_standard_input(
    front_end: FrontEnd, cli: Cli, monkeypatch: pytest.MonkeyPatch, web: Path
) -> None:
    front_end.on("POST", "plan", 200, plan())
    with web.open() as stdin:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(stdin.buffer))
        assert cli("plan", "-f", "-").code == 0
    assert front_end.last("POST", "plan").body["blueprint"]["instances"][0]["name"] == "web"
