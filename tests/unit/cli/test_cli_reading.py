"""Reading verbs: tables, JSON, YAML, names; exit codes of what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.cli.cli_front_end import AT, INSTANCE, STEPS, FrontEnd, error, operation
from tests.unit.cli.conftest import Cli

FIELDS = {"id", "name", "kind", "state", "host", "addresses", "cpu", "memory_mib", "created_at"}


def test_list_as_table_has_header_and_row(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("GET", "instances", 200, [INSTANCE])
    said = cli("instance", "list")
    header, row = said.out.splitlines()
    assert said.code == 0
    assert header.split() == ["NAME", "KIND", "STATE", "HOST", "ADDRESSES", "CPU", "MEMORY", "AGE"]
    assert row.split()[:8] == ["web", "vm", "running", "h1", "198.18.17.100", "1", "512", "MiB"]


def test_wide_shows_more_and_a_reason_only_when_there_is_one(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("GET", "instances", 200, [INSTANCE])
    wide = cli("instance", "list", "-o", "wide").out
    assert INSTANCE["id"] in wide
    assert "tier=front" in wide
    assert "REASON" not in wide
    front_end.on("GET", "instances", 200, [{**INSTANCE, "state": "held", "reason": "host h1 is full"}])
    assert "host h1 is full" in cli("instance", "list").out


def test_json_list_is_an_array_of_what_the_api_says(front_end: FrontEnd, cli: Cli) -> None:
    waiting = {**INSTANCE, "name": "new", "state": "pending", "host": None, "addresses": []}
    front_end.on("GET", "instances", 200, [INSTANCE, waiting])
    found = json.loads(cli("instance", "list", "-o", "json").out)
    assert [row["name"] for row in found] == ["web", "new"]
    assert set(found[0]) >= FIELDS
    assert (found[1]["host"], found[0]["memory_mib"], found[0]["created_at"]) == (None, 512, AT)


def test_an_empty_list_is_an_empty_array_and_an_empty_table_is_talk(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("GET", "hosts", 200, [])
    assert json.loads(cli("host", "list", "-o", "json").out) == []
    table = cli("host", "list")
    assert (table.out, table.err) == ("", "no hosts\n")
    assert cli("host", "list", "-q").err == ""


def test_all_pages_are_read(front_end: FrontEnd, cli: Cli) -> None:
    def page(asked: Any) -> tuple[int, Any]:
        second = asked.query.get("after") == "1"
        rows = [{**INSTANCE, "name": "b" if second else "a"}]
        return 200, rows if second else (rows, "/v1/instances?limit=1&after=1")

    front_end.routes["GET", "instances"] = page
    assert cli("instance", "list", "-o", "name").out == "a\nb\n"


def test_tables_are_in_the_order_of_names_and_json_in_that_of_the_api(front_end: FrontEnd, cli: Cli) -> None:
    names = ["web-10", "db", "web-2"]
    front_end.on("GET", "instances", 200, [{**INSTANCE, "name": name} for name in names])
    assert cli("instance", "list", "-o", "name").out.split() == ["db", "web-2", "web-10"]
    assert [row["name"] for row in json.loads(cli("instance", "list", "-o", "json").out)] == names


def test_filters_go_to_the_api(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("GET", "instances", 200, [])
    cli("instance", "list", "--state", "running", "--host", "h1", "-l", "a=1", "-l", "b=2")
    assert front_end.last("GET", "instances").query == {"state": "running", "host": "h1", "label": "a=1,b=2"}


def test_show_is_an_object(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("GET", "instances/web", 200, {**INSTANCE, "nics": [{"network": "lan", "address": "198.18.17.100"}]})
    assert json.loads(cli("instance", "show", "web", "-o", "json").out)["name"] == "web"
    assert yaml.safe_load(cli("instance", "show", "web", "-o", "yaml").out)["nics"][0]["network"] == "lan"
    assert cli("instance", "show", "web", "-o", "name").out == "web\n"
    table = cli("instance", "show", "web").out
    assert "512 MiB" in table
    assert "network: lan" in table


def test_operation_show_has_its_steps(front_end: FrontEnd, cli: Cli) -> None:
    found = operation()
    front_end.on("GET", f"operations/{found['id']}", 200, found)
    said = json.loads(cli("operation", "show", found["id"], "-o", "json").out)
    assert set(said) >= {"id", "verb", "state", "subject", "steps"}
    wanted = {"sequence", "name", "host", "state", "attempt", "changed", "started_at", "finished_at", "error"}
    assert [set(step) >= wanted for step in said["steps"]] == [True] * len(STEPS)
    table = cli("operation", "show", found["id"]).out
    assert "CHANGED" in table
    assert "3.5s" in table


@pytest.mark.parametrize("noun", ["instance", "host", "image", "network", "datastore", "cluster"])
def test_every_noun_lists_and_shows(front_end: FrontEnd, cli: Cli, noun: str) -> None:
    row = {"id": "01", "name": "one", "state": "ready", "created_at": AT, "labels": {}, "hosts": [], "copies": []}
    front_end.on("GET", f"{noun}s", 200, [row])
    front_end.on("GET", f"{noun}s/one", 200, row)
    assert cli(noun, "list").out.splitlines()[1].split()[0] == "one"
    assert json.loads(cli(noun, "list", "-o", "json").out)[0]["name"] == "one"
    assert json.loads(cli(noun, "show", "one", "-o", "json").out)["id"] == "01"


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (404, "not-found", 3), (403, "denied", 4), (401, "denied", 4), (409, "conflict", 5), (409, "no-fit", 6),
        (503, "no-capacity-now", 6), (400, "invalid", 2), (503, "unreachable", 1), (501, "unsupported", 1),
        (409, "host-fault", 1), (409, "credential-rejected", 1), (500, "error", 1),
    ],
)  # fmt: skip
def test_exit_codes_of_refusals(front_end: FrontEnd, cli: Cli, status: int, code: str, exit_code: int) -> None:
    front_end.on("GET", "instances/web", status, error(code))
    said = cli("instance", "show", "web")
    assert (said.code, said.out, said.err) == (exit_code, "", "error: it went wrong\n")


def test_an_error_says_what_was_seen_and_what_to_do(front_end: FrontEnd, cli: Cli) -> None:
    seen = {"needed_mib": 8192, "free": {"h1": {"memory": 10}, "h2": {"memory": 20}}, "errors": [
        {"file": "a.yaml", "line": 3, "field": "cpu", "message": "must be a number"}], "empty": []}  # fmt: skip
    front_end.on("GET", "instances/web", 409, error("no-fit", "nothing fits", evidence=seen, fix="add a host"))
    assert cli("instance", "show", "web").err.splitlines() == [
        "error: nothing fits", "  needed mib: 8192", "  h1: memory 10", "  h2: memory 20",
        "  a.yaml:3: cpu: must be a number", "what to do: add a host",
    ]  # fmt: skip


def test_long_evidence_is_cut(front_end: FrontEnd, cli: Cli) -> None:
    errors = [{"field": f"f{n}", "message": "is wrong"} for n in range(30)]
    front_end.on("GET", "instances/web", 400, error("invalid", evidence={"errors": errors}))
    lines = cli("instance", "show", "web").err.splitlines()
    assert len(lines) == 14
    assert lines[-1] == "  … and 18 lines more (-o json shows all)"


@pytest.mark.parametrize(
    "body", [b"<html>oops</html>", {"detail": "Not Found"}, {"detail": [{"loc": ["body", "x"], "msg": "no"}]}, []]
)
def test_an_answer_of_somebody_else_is_no_traceback(front_end: FrontEnd, cli: Cli, body: Any) -> None:
    front_end.on("GET", "instances/web", 422, body)
    said = cli("instance", "show", "web")
    assert said.code == 2
    assert said.err.startswith("error: ")


def test_what_is_no_json_is_not_our_api(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("GET", "instances", 200, b"<html>a proxy</html>")
    assert cli("instance", "list").code == 8


def test_the_token_is_sent(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("GET", "hosts", 200, [])
    cli("host", "list")
    assert front_end.last("GET", "hosts").headers["authorization"] == "Bearer secret"


def test_unreachable_front_end_is_8_and_says_how_to_start_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACKFLOW_URL", "http://127.0.0.1:9")
    said = cli("instance", "list")
    assert said.code == 8
    assert "connection refused" in said.err
    assert "rackflow up" in said.err


def test_without_a_front_end_known_it_is_8(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RACKFLOW_URL", raising=False)
    monkeypatch.setenv("RACKFLOW_RUN_DIR", str(tmp_path))
    said = cli("instance", "list")
    assert said.code == 8
    assert "rackflow up" in said.err


def test_endpoint_file_gives_address_and_token(
    front_end: FrontEnd, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RACKFLOW_URL")
    monkeypatch.delenv("RACKFLOW_TOKEN")
    (tmp_path / "token").write_text("from-file\n")
    (tmp_path / "endpoint.json").write_text(json.dumps({"api": front_end.url, "token_file": str(tmp_path / "token")}))
    monkeypatch.setenv("RACKFLOW_RUN_DIR", str(tmp_path))
    front_end.on("GET", "hosts", 200, [])
    assert cli("host", "list").code == 0
    assert front_end.last("GET", "hosts").headers["authorization"] == "Bearer from-file"


def test_the_local_token_goes_to_no_other_address(
    front_end: FrontEnd, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RACKFLOW_TOKEN")
    (tmp_path / "token").write_text("from-file\n")
    written = {"api": "http://127.0.0.1:1", "token_file": str(tmp_path / "token")}
    (tmp_path / "endpoint.json").write_text(json.dumps(written))
    monkeypatch.setenv("RACKFLOW_RUN_DIR", str(tmp_path))
    front_end.on("GET", "hosts", 200, [])
    cli("host", "list")
    assert "authorization" not in front_end.last("GET", "hosts").headers


def test_a_token_that_cannot_be_read_is_denied(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RACKFLOW_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("RACKFLOW_TOKEN", raising=False)
    monkeypatch.setenv("RACKFLOW_TOKEN_FILE", str(tmp_path / "none"))
    assert cli("host", "list").code == 4


def test_run_folder_may_stand_in_the_configuration(
    front_end: FrontEnd, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RACKFLOW_URL")
    (tmp_path / "config.toml").write_text(f'run_dir = "{tmp_path}"\n')
    (tmp_path / "endpoint.json").write_text(json.dumps({"api": front_end.url}))
    monkeypatch.setenv("RACKFLOW_CONFIG", str(tmp_path / "config.toml"))
    front_end.on("GET", "hosts", 200, [])
    assert cli("host", "list").code == 0


def test_one_connection_serves_many_calls_and_a_dropped_one_is_made_anew(front_end: FrontEnd) -> None:
    from rackflow_cli.connection import Api
    from rackflow_cli.endpoint import Endpoint

    front_end.on("GET", "hosts", 200, [])
    front_end.on("POST", "hosts", 202, {})
    api = Api(Endpoint(front_end.url, ""))
    assert [api.get("hosts"), api.get("hosts"), api.post("hosts", {})] == [[], [], {}]
    assert front_end.connections == 1
    front_end.drops = 1
    api.post("hosts", {"name": "h1"})
    assert front_end.connections == 2
    assert len({a.headers["idempotency-key"] for a in front_end.asked if a.method == "POST"}) == 2


@pytest.mark.parametrize("arguments", [
    ["instance", "list", "-o", "xml"], ["instance", "nonsense"], ["nonsense"], ["instance", "show"],
    ["instance", "create", "web"], ["instance", "create", "web", "--image", "i", "--label", "x"],
    ["network", "create", "n", "--bridge", "b", "--range", "5"], ["completion", "tcsh"], ["host", "enroll", "a@b:c"],
])  # fmt: skip
def test_wrong_usage_is_2(front_end: FrontEnd, cli: Cli, arguments: list[str]) -> None:
    said = cli(*arguments)
    assert (said.code, said.out) == (2, "")
    assert said.err


def test_a_typo_is_answered(cli: Cli) -> None:
    assert "Did you mean 'instance'?" in cli("instnace", "list").err
    assert "Did you mean 'list'?" in cli("instance", "lst").err


def test_a_defect_is_told_without_a_traceback(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("GET", "operations/x", 200, 5)
    said = cli("operation", "show", "x")
    assert said.code == 1
    assert "RACKFLOW_DEBUG=1" in said.err


def test_debug_shows_where_it_broke(front_end: FrontEnd) -> None:
    front_end.on("GET", "operations/x", 200, 5)
    done = _process("operation", "show", "x", RACKFLOW_DEBUG="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_closed_pipe_is_no_error(front_end: FrontEnd) -> None:
    front_end.on("GET", "instances", 200, [INSTANCE] * 3000)
    command = f"set -o pipefail; {sys.executable} -m rackflow_cli.main instance list -o json | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[\n", "")


def _process(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rackflow_cli.main", *arguments], capture_output=True, text=True, check=False,
        env={**os.environ, **env},
    )  # fmt: skip
