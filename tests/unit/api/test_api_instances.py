"""Asking for instances: accepted once, in one transaction, with the dispatcher woken."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from core.states import InstanceState
from tests.unit.api.rig import Rig

WEB = {"name": "web", "image": "tiny", "memory": "256MiB", "labels": {"tier": "front"}}


async def test_accepted_at_once(api: Rig) -> None:
    await api.furnish()
    before = len(api.wakes)
    answer = await api.call("POST", "/instances", WEB)
    made = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/requests/{made['request']}"
    [operation] = made["operations"]
    assert (operation["verb"], operation["name"], operation["state"]) == ("deploy", "web", "pending")
    assert len(api.wakes) == before + 1
    shown = await api.ok("GET", "/instances/web")
    assert operation["subject"] == f"instance/{shown['id']}"
    assert (shown["state"], shown["memory_mib"], shown["operation"]) == ("pending", 256, operation["id"])
    assert (await api.ok("GET", f"/instances/{shown['id']}"))["name"] == "web"
    told = await api.ok("GET", f"/requests/{made['request']}")
    assert [op["id"] for op in told["operations"]] == [operation["id"]]


async def test_a_list_is_one_request(api: Rig) -> None:
    await api.furnish()
    made = await api.ok("POST", "/instances", [WEB, {"name": "db", "image": "tiny", "count": 3}])
    assert sorted(op["name"] for op in made["operations"]) == ["db-1", "db-2", "db-3", "web"]
    assert [row["operations"] for row in await api.ok("GET", "/requests?limit=1")] == [4]


async def test_of_many_at_the_same_time_each_gets_its_own_answer(api: Rig) -> None:
    await api.furnish()
    names = [f"web{n % 12}" for n in range(16)]  # four of them are asked for twice
    answers = await asyncio.gather(*(api.call("POST", "/instances", {**WEB, "name": name}) for name in names))
    accepted = [one.json() for one in answers if one.status_code == 202]
    assert sorted(one["operations"][0]["name"] for one in accepted) == sorted(set(names))
    assert len({one["request"] for one in accepted}) == 12
    assert [one.json()["code"] for one in answers if one.status_code != 202] == ["conflict"] * 4
    for name, one in zip(names, answers, strict=True):
        if one.status_code == 202:
            assert [op["name"] for op in one.json()["operations"]] == [name]


async def test_all_or_nothing(api: Rig) -> None:
    await api.furnish()
    answer = await api.call("POST", "/instances", [WEB, {"name": "db", "image": "nowhere"}])
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    assert await api.ok("GET", "/instances") == []


async def test_idempotency_key(api: Rig) -> None:
    await api.furnish()
    first = await api.call("POST", "/instances", WEB, Idempotency_Key="k1")
    woken = len(api.wakes)
    again = await api.call("POST", "/instances", WEB, Idempotency_Key="k1")
    assert again.json() == {**first.json(), "repeated": True}
    assert len(api.wakes) == woken
    other = await api.call("POST", "/instances", {**WEB, "cpu": 2}, Idempotency_Key="k1")
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    users = await api.call("POST", "/instances", {**WEB, "name": "mine"}, token=api.user("ann"), Idempotency_Key="k1")
    assert users.status_code == 202
    taken = await api.call("POST", "/instances", WEB, Idempotency_Key="k2")
    assert (taken.status_code, taken.json()["code"]) == (409, "conflict")


async def test_the_same_key_at_the_same_time(api: Rig) -> None:
    await api.furnish()
    answers = await asyncio.gather(*(api.call("POST", "/instances", WEB, Idempotency_Key="k") for _ in range(8)))
    assert len({answer.json()["request"] for answer in answers}) == 1
    assert sorted(answer.json()["repeated"] for answer in answers) == [False] + [True] * 7


async def test_filters_and_pages(api: Rig) -> None:
    await api.furnish()
    await api.ok("POST", "/instances", [WEB, {"name": "db", "image": "tiny", "count": 4, "labels": {"tier": "back"}}])

    async def names(query: str) -> list[str]:
        return [row["name"] for row in await api.ok("GET", f"/instances?{query}")]

    assert await names("label=tier=front") == ["web"]
    assert len(await names("state=pending&label=tier=back")) == 4
    assert await names("state=running") == await names("host=h1") == []
    assert await names("name=db-2") == ["db-2"]
    found: list[str] = []
    url: str | None = "/v1/instances?limit=2&label=tier=back"
    while url:
        answer = await api.client.get(url, headers={"Authorization": f"Bearer {api.token}"})
        found += [row["name"] for row in answer.json()]
        url = answer.links.get("next", {}).get("url")
    assert sorted(found) == ["db-1", "db-2", "db-3", "db-4"]


async def test_delete_cancels_what_waits(api: Rig) -> None:
    await api.furnish()
    made = await api.ok("POST", "/instances", WEB)
    gone = await api.ok("DELETE", "/instances/web?grace_s=3")
    ids = ",".join(op["id"] for op in (*made["operations"], *gone["operations"]))
    delete, deploy = await api.ok("GET", f"/operations?ids={ids}&steps=true")
    assert (deploy["state"], delete["verb"], delete["parameters"]) == (
        "cancelled", "delete", {"grace_s": 3.0, "was": "pending"},
    )  # fmt: skip
    assert deploy["steps"] == []


@pytest.mark.parametrize("verb", ["start", "shutdown", "stop"])
async def test_verbs_need_a_fitting_state(api: Rig, verb: str) -> None:
    await api.furnish()
    await api.ok("POST", "/instances", WEB)
    answer = await api.call("POST", f"/instances/web/{verb}")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert "operation" in answer.json()["evidence"]


async def test_cancel(api: Rig) -> None:
    await api.furnish()
    made = await api.ok("POST", "/instances", WEB)
    path = f"/operations/{made['operations'][0]['id']}"
    assert (await api.ok("POST", f"{path}/cancel"))["state"] == "cancelled"
    assert (await api.call("POST", f"{path}/cancel")).status_code == 409
    assert (await api.ok("GET", "/instances/web"))["state"] == InstanceState.FAILED


async def test_operations_newest_first(api: Rig) -> None:
    await api.furnish()
    await api.ok("POST", "/instances", {**WEB, "count": 5})
    rows = await api.ok("GET", "/operations?limit=3&verb=deploy")
    ids = [row["id"] for row in rows]
    assert ids == sorted(ids, reverse=True)
    rest = await api.ok("GET", f"/operations?verb=deploy&after={ids[-1]}")
    assert len(rest) == 2
    assert {row["state"] for row in await api.ok("GET", "/operations?state=pending")} == {"pending"}
    many = ",".join(["x"] * 1001)
    assert (await api.call("GET", f"/operations?ids={many}")).status_code == 400


async def test_exec_and_logs_need_a_place(api: Rig) -> None:
    await api.furnish()
    await api.ok("POST", "/instances", WEB)
    for request in (("POST", "/instances/web/exec", {"argv": ["id"]}), ("GET", "/instances/web/logs")):
        answer = await api.call(*request)
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict"), answer.text


async def test_a_thousand_in_one_request(api: Rig) -> None:
    await api.furnish()
    made: dict[str, Any] = await api.ok("POST", "/instances", {**WEB, "count": 1000})
    assert len({op["id"] for op in made["operations"]}) == 1000
    assert len(await api.ok("GET", "/instances?limit=10000")) == 1000
