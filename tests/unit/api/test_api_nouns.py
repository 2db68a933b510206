"""The other nouns, status, and the history behind the API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from analytics.owner import AnalyticsOwner
from control import drift, placing
from control.operations import Operation
from tests.unit.api.rig import LAN, Rig

WEB = {"name": "web", "image": "tiny"}


@pytest.mark.parametrize(("path", "spec", "change"), [
    ("/clusters", {"name": "east"}, {"cpu_overcommit": 2.0}),
    ("/clusters", {"name": "west"}, {"rebalance": {
        "mode": "automatic", "kind": "consolidate", "threshold": 0.1, "max_moves_per_hour": 5}}),
    ("/clusters", {"name": "edge", "placement_policy": "spread"}, {"placement_policy": "pack"}),
    ("/datastores", {"name": "fast", "path": "/srv/fast"}, {"labels": {"kind": "ssd"}}),
    ("/networks", LAN, {"labels": {"for": "vms"}}),
])  # fmt: skip
async def test_ensured_nouns(api: Rig, path: str, spec: dict[str, Any], change: dict[str, Any]) -> None:
    made = await api.call("POST", path, spec)
    assert made.status_code == 201
    assert (await api.call("POST", path, spec)).status_code == 200
    changed = await api.call("POST", path, {**spec, **change})
    assert changed.status_code == 201
    row = changed.json()
    assert row["id"] == made.json()["id"]
    assert change.items() <= row.items()
    assert spec["name"] in [one["name"] for one in await api.ok("GET", path)]
    assert [one["name"] for one in await api.ok("GET", f"{path}?name={spec['name']}")] == [spec["name"]]
    assert (await api.ok("GET", f"{path}/{row['id']}"))["name"] == spec["name"]
    await api.ok("DELETE", f"{path}/{row['id']}")
    assert (await api.call("GET", f"{path}/{spec['name']}")).status_code == 404


async def test_a_cluster_cannot_name_a_policy_that_is_not_there(api: Rig) -> None:
    answer = await api.call("POST", "/clusters", {"name": "edge", "placement_policy": "sprawl"})
    assert answer.status_code == 400
    assert "balanced" in answer.json()["fix"]


async def test_reservations(api: Rig) -> None:
    await api.furnish(hosts_=("h1",))
    times = {"begins_at": "2130-01-01T00:00:00Z", "ends_at": "2130-01-02T00:00:00Z"}
    made = await api.call("POST", "/reservations", {"name": "r", "host": "h1", "cpu": 2, **times})
    assert (made.status_code, made.json()["host"], made.json()["owner"]) == (201, "h1", "admin")
    assert (await api.call("POST", "/reservations", {"name": "r", "host": "h1", "cpu": 2, **times})).status_code == 409
    assert (await api.call("POST", "/reservations", {"name": "q", "cpu": 2, **times})).status_code == 400
    assert [row["cpu"] for row in await api.ok("GET", "/reservations")] == [2.0]
    before = len(api.wakes)
    await api.ok("DELETE", "/reservations/r")
    assert len(api.wakes) == before + 1
    assert (await api.call("GET", "/reservations/r")).status_code == 404


async def test_used_network_stays(api: Rig) -> None:
    await api.furnish()
    await api.ok("POST", "/instances", WEB)
    api.work(_place)
    answer = await api.call("DELETE", "/networks/lan")
    assert (answer.status_code, answer.json()["evidence"]["instances"]) == (409, ["web"])
    assert [row["instance"] for row in (await api.ok("GET", "/networks/lan"))["leases"]] == ["web"]


def _place(c: Any, op: Operation) -> None:
    [outcome] = placing.place(c, [op])
    assert outcome.error is None


async def test_hosts(api: Rig) -> None:
    await api.furnish(hosts_=("h1", "h2"))
    assert sorted(row["name"] for row in await api.ok("GET", "/hosts")) == ["h1", "h2"]
    assert await api.ok("POST", "/hosts/h1/disable") == {"changed": True}
    assert await api.ok("POST", "/hosts/h1/disable") == {"changed": False}
    assert [row["name"] for row in await api.ok("GET", "/hosts?state=ready")] == ["h2"]
    before = len(api.wakes)
    assert await api.ok("POST", "/hosts/h1/enable") == {"changed": True}
    assert len(api.wakes) == before + 1
    shown = await api.ok("GET", "/hosts/h1")
    assert (shown["facts"]["kernel"], shown["networks"][0]["name"], shown["cpus"]) == ("6.1", "lan", 8)
    retired = await api.ok("DELETE", "/hosts/h2?force=true")
    assert retired["operations"][0]["verb"] == "retire"


async def test_scan_of_a_closed_port(api: Rig) -> None:
    answer = await api.call("GET", "/hosts/scan?address=127.0.0.1&port=1")
    assert (answer.status_code, answer.json()["code"]) == (503, "unreachable")


async def test_images(api: Rig) -> None:
    await api.furnish(images_=("tiny", "other"))
    assert [row["state"] for row in await api.ok("GET", "/images")] == ["ready", "ready"]
    assert (await api.ok("GET", "/images/tiny"))["spec"]["source"] == "/images/tiny.qcow2"
    assert (await api.ok("POST", "/images/tiny/stage", {"hosts": ["h1"]}))["operations"][0]["verb"] == "stage"
    assert (await api.ok("DELETE", "/images/other"))["operations"][0]["verb"] == "remove"
    missing = await api.call("POST", "/images/tiny/stage", {"hosts": ["nowhere"]})
    assert missing.status_code == 404


async def test_reconcile_is_one_at_a_time(api: Rig) -> None:
    await api.furnish()
    first = await api.ok("POST", "/reconcile")
    second = await api.ok("POST", "/reconcile", {"hosts": []})
    assert first["operations"][0]["id"] == second["operations"][0]["id"]
    assert second["repeated"]


async def test_drift(api: Rig) -> None:
    await api.furnish()
    made = await api.ok("POST", "/instances", WEB, token=api.user("ann"))
    subject = made["operations"][0]["subject"]
    row_id = api.store.write_now(lambda c: drift.open_(
        c, subject=subject, host="h1", kind="power", recorded={"state": "running"}, seen={"power": "stopped"},
        policy="repair",
    ))  # fmt: skip
    assert [row["name"] for row in await api.ok("GET", "/drift")] == ["web"]
    assert await api.ok("GET", "/drift", token=api.user("bob")) == []
    api.store.write_now(lambda c: drift.close(c, row_id, "repaired"))
    assert await api.ok("GET", "/drift") == []
    assert len(await api.ok("GET", "/drift?state=all")) == 1


async def test_explain_after_a_decision(api: Rig) -> None:
    await api.furnish()
    await api.ok("POST", "/instances", [WEB, {**WEB, "name": "huge", "memory": "1TiB"}])
    assert (await api.call("GET", "/instances/web/explain")).status_code == 404
    api.work(lambda c, op: placing.place(c, [op]))
    told = await api.ok("GET", "/instances/web/explain")
    assert (told["host"], told["hosts"][0]["host"]) == ("h1", "h1")
    told = await api.ok("GET", "/instances/huge/explain")
    assert (told["host"], told["hosts"][0]["constraint"]) == (None, "memory")
    assert (await api.call("GET", "/instances/web/explain", token=api.user("bob"))).status_code == 404


async def test_status_without_history(api: Rig) -> None:
    await api.furnish(hosts_=("h1", "h2"))
    await api.ok("POST", "/instances", WEB)
    told = await api.ok("GET", "/status")
    assert (told["hosts"], told["instances"], told["operations"]) == ({"ready": 2}, {"pending": 1}, {"pending": 1})
    assert told["history"]["error"]["code"] == "unreachable"
    (api.settings.paths.run_dir / "status.json").write_text('{"processes": [{"name": "api", "state": "ready"}]}')
    assert (await api.ok("GET", "/status"))["processes"][0]["name"] == "api"


async def test_capacity_without_history(api: Rig) -> None:
    await api.furnish()
    [row] = await api.ok("GET", "/capacity")
    assert (row["host"], row["cpus"], row["memory_mib"], row["cpu_used"]) == ("h1", 8, 16384, None)
    answer = await api.call("POST", "/query", {"sql": "SELECT 1"})
    assert (answer.status_code, answer.json()["code"]) == (503, "unreachable")


async def test_history_behind_the_api(api: Rig, history: AnalyticsOwner) -> None:
    await api.furnish()
    ann = api.user("ann")
    await api.ok("POST", "/instances", WEB, token=ann)
    told = await api.ok("GET", "/instances/web/history", token=ann)
    assert (told["instance"], told["owner"], told["timeline"][0]["to"]) == ("web", "ann", "pending")
    assert (await api.call("GET", "/instances/web/history", token=api.user("bob"))).status_code == 404
    assert (await api.call("GET", "/instances/none/history")).status_code == 404
    rows = await api.ok("POST", "/query", {"sql": "SELECT instance, to_state FROM events WHERE kind = 'lifecycle'"})
    assert (rows["columns"], rows["rows"]) == (["instance", "to_state"], [["web", "pending"]])
    assert len((await api.ok("POST", "/query", {"sql": "SELECT * FROM range(9)", "limit": 2}))["rows"]) == 2
    refused = await api.call("POST", "/query", {"sql": "DROP TABLE events"})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid")
    assert "events" in (await api.ok("GET", "/status"))["history"]["rows"]


async def test_measured_capacity(api: Rig, history: AnalyticsOwner) -> None:
    await api.furnish()
    sample = {"at": datetime.now(UTC), "host": "h1", "instance_id": None, "cpus": 8.0, "cpu_used": 2.0,
              "memory_mib": 16384, "memory_used_mib": 4096, "disk_total_mib": 100, "disk_free_mib": 50}  # fmt: skip
    api.app.state.context.analytics.put_usage([sample])
    [row] = await api.ok("GET", "/capacity", token=api.user("ann"))
    assert (row["cpu_used"], row["cpu_used_ratio"], row["memory_used_mib"], row["disk_free_mib"]) == (2, 0.25, 4096, 50)
    features = await api.app.state.context.features()
    assert features["hosts"]["h1"]["cpu_used_ratio"] == 0.25
