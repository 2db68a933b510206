"""rackflow plan rebalance, consolidate, evacuate, list, show, apply, cancel."""

from __future__ import annotations

import json
from typing import Any

from tests.unit.cli.cli_front_end import AT, FrontEnd, error, operation
from tests.unit.cli.conftest import Cli


def standing(used: int, share: float, *empty: str) -> dict[str, Any]:
    return {"hosts_used": used, "empty_hosts": list(empty), "greatest_share": share, "spread": share}


def plan(state: str = "ready", **more: Any) -> dict[str, Any]:
    """Return a plan as the API shows it."""
    move = {
        "instance_id": "i1", "instance": "web", "from": "h1", "to": "h2", "live": True, "carried_mib": 2048,
        "expected_s": 4.2, "after": [], "state": "waiting", "operation": None, "took_s": None, "reason": None,
    }  # fmt: skip
    return {
        "id": "p1", "kind": "consolidate", "host": None, "cluster": None, "state": state, "asked_by": "admin",
        "moves_planned": 1, "effect": {"before": standing(2, 0.25), "after": standing(1, 0.5, "h1")},
        "method": "exact", "optimal": True, "eta_s": 4.2, "operation": None, "error": None, "created_at": AT,
        "finished_at": None, "parameters": {}, "made_from": {}, "moves": [move],
        "stays": {**{f"c{n}": "it runs" for n in range(7)}, "db": "it has snapshots"},
        **more,
    }  # fmt: skip


def test_a_plan_is_shown_and_nothing_moves(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("POST", "plans", 201, plan())
    said = cli("plan", "consolidate", "--cluster", "east")
    assert said.code == 0
    assert front_end.last("POST", "plans").body == {"kind": "consolidate", "cluster": "east"}
    assert "hosts in use 2 → 1, greatest load 25% → 50%" in said.out
    assert "c0, c1, c2, c3, c4 and 2 more: it runs\n" in said.out
    assert "db: it has snapshots" in said.out
    (row,) = [line.split() for line in said.out.splitlines() if line.startswith("1 ") or " web " in line]
    assert row[:5] == ["1", "web", "h1", "h2", "live"]
    assert said.err == "nothing is moved yet: rackflow plan apply p1\n"
    assert json.loads(cli("plan", "consolidate", "-o", "json").out) == plan()


def test_wishes_that_a_plan_mends_are_named(front_end: FrontEnd, cli: Cli) -> None:
    broken = [{"instance": f"web-{n}", "rule": "apart from role=web by rack"} for n in range(8)]
    effect = {
        "before": {**standing(2, 0.25), "broken_wishes": broken},
        "after": {**standing(2, 0.25), "broken_wishes": broken[7:]},
    }
    front_end.on("POST", "plans", 201, plan(effect=effect))
    said = cli("plan", "rebalance").out
    assert "broken 8 → 1" in said
    assert "mended: web-0: apart from role=web by rack" in said
    assert "mended: web-4: apart from role=web by rack and 2 more" in said
    assert "web-7" not in said


def test_what_is_asked_for(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("POST", "plans", 201, plan(moves=[]))
    said = cli("plan", "rebalance", "--threshold", 10, "--cold")
    assert front_end.last("POST", "plans").body == {"kind": "rebalance", "threshold": 0.1, "cold": True}
    assert said.err == "nothing to move: no plan would be better\n"
    cli("plan", "evacuate", "h1")
    assert front_end.last("POST", "plans").body == {"kind": "evacuate", "host": "h1"}


def test_a_plan_is_applied_and_shown_again(front_end: FrontEnd, cli: Cli) -> None:
    done = operation("done", "consolidate", "apply-plan")
    front_end.on("GET", "plans/p1", 200, plan("done"))
    front_end.on("POST", "plans/p1/apply", 202, {"request": "r", "operations": [done]})
    front_end.on("GET", "operations", 200, [done])
    said = cli("plan", "apply", "p1", "--yes", "--parallel", 8)
    assert said.code == 0
    assert front_end.last("POST", "plans/p1/apply").body == {"parallel": 8}
    assert "done" in said.out


def test_a_refusal_says_what_has_changed(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("GET", "plans/p1", 200, plan())
    front_end.on("POST", "plans/p1/apply", 409, error(
        "conflict", "plan p1 is out of date: instance web is gone from its host", fix="make a new one"
    ))  # fmt: skip
    said = cli("plan", "apply", "p1", "--yes")
    assert said.code == 5
    assert "instance web is gone" in said.err


def test_list_and_cancel(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("GET", "plans", 200, [plan(), plan("applying", id="p2", operation="o2")])
    assert "25% → 50%" in cli("plan", "list").out
    assert cli("plan", "list", "-o", "name").out == "p1\np2\n"
    front_end.on("GET", "plans/p1", 200, plan())
    front_end.on("POST", "plans/p1/cancel", 200, plan("cancelled"))
    assert cli("plan", "cancel", "p1").err == "plan p1 cancelled\n"
    front_end.on("GET", "plans/p2", 200, plan("applying", id="p2", operation="o2"))
    front_end.on("POST", "operations/o2/cancel", 200, operation("running"))
    assert "no more moves begin" in cli("plan", "cancel", "p2").err


def test_a_cluster_that_may_move_by_itself(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("POST", "clusters", 201, {"name": "east"})
    cli("cluster", "create", "east", "--rebalance", "consolidate", "--moves-per-hour", 5, "--threshold", 20)
    assert front_end.last("POST", "clusters").body["rebalance"] == {
        "mode": "automatic", "kind": "consolidate", "max_moves_per_hour": 5, "threshold": 0.2,
    }  # fmt: skip
    assert cli("cluster", "create", "east", "--moves-per-hour", 5).code == 2
