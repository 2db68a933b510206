"""explain, history, capacity, query, drift, reconcile."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.cli.cli_front_end import AT, FrontEnd, operation
from tests.unit.cli.conftest import Cli

EXPLAINED: dict[str, Any] = {
    "id": "d", "operation": "o", "instance": "i", "host": "h1", "decided_at": AT, "features_version": 3, "position": 0,
    "datastore": "local", "shape": {"kind": "vm", "cpu": 1.0, "memory_mib": 512, "nics": {"lan": 1}},
    "hosts": [
        {"host": "h1", "rank": 0, "fits": 12, "score": -0.5123, "parts": {"balance": -0.75, "left": 0.24}},
        {"host": "h2", "rank": 1, "fits": 4, "score": 0.1, "parts": {"empty": 0.1}},
        {"host": "h3", "constraint": "kind", "reason": "runs containers only"},
    ],
}  # fmt: skip


def test_explain_says_why_there(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("GET", "instances/web/explain", 200, EXPLAINED)
    lines = cli("explain", "web").out.splitlines()
    assert lines[0].startswith("web was placed on h1 ")
    assert lines[1] == "asked for: vm, 1 cpu, 512 MiB memory, nics lan=1"
    assert [line.split()[:2] for line in lines[3:]] == [
        ["HOST", "VERDICT"], ["h1", "chosen"], ["h2", "fits"], ["h3", "no"],
    ]  # fmt: skip
    assert lines[-1].endswith("kind: runs containers only")
    assert json.loads(cli("explain", "web", "-o", "json").out) == EXPLAINED
    assert cli("instance", "explain", "web").out.splitlines()[0].startswith("web was placed on h1")


def test_explain_says_by_which_policies(front_end: FrontEnd, cli: Cli) -> None:
    best = [{"cluster": "edge", "host": "h1", "score": -0.5}, {"cluster": "far", "host": "f1", "score": 1.25}]
    told = {**EXPLAINED, "policy": "striping", "across": {"policy": "balanced", "clusters": best}}
    front_end.on("GET", "instances/web/explain", 200, told)
    lines = cli("explain", "web").out.splitlines()
    assert lines[2:5] == [
        "hosts are compared by striping", "clusters are compared by balanced: edge -0.5 (h1), far 1.25 (f1)", "",
    ]  # fmt: skip


def test_explain_says_why_nowhere_and_what_would_fit(front_end: FrontEnd, cli: Cli) -> None:
    told = {
        **EXPLAINED, "host": None, "hosts": EXPLAINED["hosts"][2:], "others": {"memory": 2},
        "change": {"host": "h1", "text": "256 MiB of memory instead of 512 would fit on h1", "changes": []},
    }  # fmt: skip
    front_end.on("GET", "instances/web/explain", 200, told)
    said = cli("explain", "web").out
    assert said.startswith("web fitted nowhere")
    assert "and 2 hosts more: memory" in said
    assert said.endswith("smallest change: 256 MiB of memory instead of 512 would fit on h1\n")


def test_history_is_a_timeline(front_end: FrontEnd, cli: Cli) -> None:
    told = {
        "instance_id": "i", "instance": "web", "owner": "admin", "host": "h1", "state": "running",
        "timeline": [
            {"at": AT, "kind": "lifecycle", "to": "pending"},
            {"at": AT, "kind": "lifecycle", "from": "pending", "to": "staging", "host": "h1"},
            {"at": AT, "kind": "step", "step": "image", "outcome": "done", "host": "h1", "duration_s": 1.25},
            {"at": AT, "kind": "operation", "verb": "deploy", "to": "done", "duration_s": 75.0, "error": "slow"},
        ],
    }  # fmt: skip
    front_end.on("GET", "instances/web/history", 200, told)
    lines = [" ".join(line.split()) for line in cli("history", "web").out.splitlines()]
    assert lines == [
        "AT WHAT HOST TOOK REASON", f"{AT} pending - - -", f"{AT} pending → staging h1 - -",
        f"{AT} image: done h1 1.2s -", f"{AT} deploy done - 1m15s slow",
    ]  # fmt: skip
    assert json.loads(cli("history", "web", "-o", "json").out) == told


def test_capacity(front_end: FrontEnd, cli: Cli) -> None:
    row = {
        "host": "h1", "state": "ready", "cluster": "default", "cpus": 8.0, "cpu_reserved": 2.5, "memory_mib": 16384,
        "memory_reserved_mib": 1024, "instances": 3, "cpu_used": 0.333, "cpu_used_ratio": 0.04, "memory_used_mib": None,
        "disk_total_mib": 102400, "disk_free_mib": 51200, "sampled_at": None,
    }  # fmt: skip
    front_end.on("GET", "capacity", 200, [row])
    assert cli("capacity").out.splitlines()[1].split() == (
        ["h1", "ready", "8", "2.5", "0.33", "16", "GiB", "1", "GiB", "-", "100", "GiB", "50", "GiB", "3", "-"]
    )  # fmt: skip
    assert json.loads(cli("capacity", "-o", "json").out) == [row]
    assert cli("capacity", "-o", "name").out == "h1\n"


def test_query_as_table_and_as_objects(front_end: FrontEnd, cli: Cli) -> None:
    answer = {"columns": ["step", "runs"], "types": [], "rows": [["image", 2], ["start", 1250000]], "truncated": True}
    front_end.on("POST", "query", 200, answer)
    said = cli("query", "SELECT step, runs FROM steps", "--limit", 2)
    assert [line.split() for line in said.out.splitlines()] == [["step", "runs"], ["image", "2"], ["start", "1250000"]]
    assert said.err == "only the first 2 rows; --limit shows more\n"
    assert front_end.last("POST", "query").body == {"sql": "SELECT step, runs FROM steps", "limit": 2}
    assert json.loads(cli("query", "x", "-o", "json").out)[1] == {"step": "start", "runs": 1250000}


@pytest.mark.parametrize("rows", [[], [["x"]]])
def test_query_names_its_columns_even_without_rows(front_end: FrontEnd, cli: Cli, rows: list[list[str]]) -> None:
    front_end.on("POST", "query", 200, {"columns": ["step"], "types": [], "rows": rows, "truncated": False})
    assert cli("query", "SELECT").out.split() == ["step", *(row[0] for row in rows)]


def test_drift_and_reconcile(front_end: FrontEnd, cli: Cli) -> None:
    row = {
        "subject": "instance/web", "host": "h1", "kind": "stopped", "state": "open", "recorded": {"state": "running"},
        "seen": {"power": "stopped"}, "since_at": AT,
    }  # fmt: skip
    front_end.on("GET", "drift", 200, [row])
    assert "state=running" in cli("drift", "list").out
    done = operation("done", "all", "reconcile")
    front_end.on("POST", "reconcile", 202, {"operations": [done]})
    front_end.on("GET", "operations", 200, [done])
    assert cli("reconcile", "h1").code == 0
    assert front_end.last("POST", "reconcile").body == {"hosts": ["h1"]}
