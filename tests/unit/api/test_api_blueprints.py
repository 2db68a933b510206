"""Whole blueprints through the API: applied, applied again, planned."""

from __future__ import annotations

from typing import Any

from api import ledger_models
from tests.unit.api.rig import LAN, Rig

CLOUD: dict[str, Any] = {
    "clusters": [{"name": "east"}],
    "networks": [LAN],
    "images": [{"name": "tiny", "source": "/images/tiny.qcow2"}],
    "instances": [{"name": "web", "image": "tiny", "memory": "128MiB", "count": 2}],
}


async def test_apply_twice(api: Rig) -> None:
    done = await api.ok("POST", "/apply", {"blueprint": CLOUD})
    ledger_models.Plan.model_validate(done)
    assert (done["clusters"]["create"], done["instances"]["create"]) == (["east"], ["web-1", "web-2"])
    assert sorted((op["verb"], op["name"]) for op in done["operations"]) == [
        ("deploy", "web-1"), ("deploy", "web-2"), ("import", "tiny"),
    ]  # fmt: skip
    assert len(api.wakes) == 1
    again = await api.ok("POST", "/apply", {"blueprint": CLOUD})
    assert again["instances"]["unchanged"] == ["web-1", "web-2"]
    assert again["operations"] == []


async def test_lower_count_needs_prune(api: Rig) -> None:
    await api.furnish()
    await api.ok("POST", "/apply", {"blueprint": CLOUD})
    fewer = {**CLOUD, "instances": [{**CLOUD["instances"][0], "count": 1}]}
    assert (await api.ok("POST", "/apply", {"blueprint": fewer}))["surplus"] == ["web-2"]
    done = await api.ok("POST", "/apply", {"blueprint": fewer, "prune": True})
    assert [(op["verb"], op["name"]) for op in done["operations"]] == [("delete", "web-2")]


async def test_plan_changes_nothing(api: Rig) -> None:
    await api.furnish(hosts_=("h1", "h2"))
    huge = {"name": "huge", "image": "tiny", "memory": "1TiB"}
    wanted = {"blueprint": {**CLOUD, "instances": [*CLOUD["instances"], huge]}}
    for answer in (await api.ok("POST", "/plan", wanted), await api.ok("POST", "/apply", {**wanted, "dry_run": True})):
        ledger_models.Plan.model_validate(answer)
        assert answer["dry_run"]
        assert answer["operations"] == []
        found = {row["name"]: row for row in answer["placements"]}
        assert found["web-1"]["host"] in ("h1", "h2")
        assert (found["huge"]["host"], found["huge"]["error"]["code"]) == (None, "no-fit")
    assert await api.ok("GET", "/instances") == []
    assert [row["name"] for row in await api.ok("GET", "/clusters")] == ["default"]


async def test_the_same_key(api: Rig) -> None:
    first = await api.call("POST", "/apply", {"blueprint": CLOUD}, Idempotency_Key="k")
    again = await api.call("POST", "/apply", {"blueprint": CLOUD}, Idempotency_Key="k")
    assert [op["id"] for op in again.json()["operations"]] == [op["id"] for op in first.json()["operations"]]


async def test_users_may_apply_instances_only(api: Rig) -> None:
    await api.furnish()
    token = api.user("ann")
    answer = await api.call("POST", "/apply", {"blueprint": CLOUD}, token=token)
    assert (answer.status_code, answer.json()["code"]) == (403, "denied")
    assert "web-1" not in str(await api.ok("GET", "/instances"))
    done = await api.ok("POST", "/apply", {"blueprint": {"instances": CLOUD["instances"]}}, token=token)
    assert len(done["operations"]) == 2
