"""Plans behind the API: made, shown, refused, carried out, cancelled."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator

from control import instances, operations, placing
from control.operations import Operation
from core.states import InstanceState, OperationState
from tests.unit.api.rig import Rig, enrolled


def _run(c: Any, op: Operation) -> None:
    [outcome] = placing.place(c, [op])
    assert outcome.error is None
    instances.set_states(c, [(op.subject_id, InstanceState.RUNNING, op.epoch, "")])


async def furnished(api: Rig) -> None:
    """Let two instances run on h1, and enroll h2 after that."""
    await api.furnish()
    await api.ok("POST", "/instances", [{"name": n, "image": "tiny", "cpu": 2, "memory": 1024} for n in ("a", "b")])
    api.work(_run)
    await api.ok("POST", "/hosts", {"name": "h2", "address": "10.9.0.9"})
    api.work(enrolled)


async def test_a_plan_from_made_to_applied(api: Rig) -> None:
    await furnished(api)
    made = await api.call("POST", "/plans", {"kind": "rebalance", "threshold": 0.0, "cold": True})
    assert made.status_code == 201, made.text
    plan = made.json()
    assert [(m["instance"], m["from"], m["to"], m["state"]) for m in plan["moves"]] == [("a", "h1", "h2", "waiting")]
    assert plan["effect"]["before"]["empty_hosts"] == ["h2"]
    assert plan["effect"]["after"]["greatest_share"] < plan["effect"]["before"]["greatest_share"]
    assert [row["id"] for row in await api.ok("GET", "/plans")] == [plan["id"]]
    assert await api.ok("GET", f"/plans/{plan['id']}") == plan
    page = (await api.client.get("/v1/openapi.json")).json()
    schema = page["paths"]["/v1/plans/{plan_id}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    Draft202012Validator({**schema, "components": page["components"]}).validate(plan)
    accepted = await api.ok("POST", f"/plans/{plan['id']}/apply", {"parallel": 1})
    (op,) = accepted["operations"]
    assert (op["verb"], op["subject"], op["name"]) == ("apply-plan", f"plan/{plan['id']}", "rebalance")
    shown = await api.ok("GET", f"/plans/{plan['id']}")
    assert (shown["state"], shown["operation"]) == ("applying", op["id"])
    again = await api.call("POST", f"/plans/{plan['id']}/apply")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


async def test_what_cannot_be_moved_is_told(api: Rig) -> None:
    await furnished(api)
    plan = await api.ok("POST", "/plans", {"kind": "consolidate"})
    assert plan["moves"] == []
    assert plan["stays"]["a"].startswith("it cannot be moved live")


async def test_a_plan_is_refused_when_an_instance_was_deleted(api: Rig) -> None:
    await furnished(api)
    plan = await api.ok("POST", "/plans", {"kind": "evacuate", "host": "h1", "cold": True})
    await api.ok("DELETE", "/instances/a")
    for op in api.store.write_now(lambda c: operations.claim_pending(c, api.worker)):
        def end(c: Any, op: Operation = op) -> None:
            instances.release(c, op, op.subject_id)
            instances.mark_deleted(c, op, op.subject_id)
            operations.finish(c, op, OperationState.DONE)

        api.store.write_now(end)
    answer = await api.call("POST", f"/plans/{plan['id']}/apply")
    assert answer.status_code == 409
    assert answer.json()["evidence"]["changed"] == ["instance a is gone from its host"]
    assert answer.json()["fix"] == "make a new one: rackflow plan evacuate h1"
    assert (await api.ok("GET", "/hosts/h1"))["state"] == "ready"
    assert (await api.ok("POST", f"/plans/{plan['id']}/cancel"))["state"] == "cancelled"


async def test_plans_are_not_for_users_and_bad_ones_are_refused(api: Rig) -> None:
    await furnished(api)
    ann = api.user("ann")
    plan = await api.ok("POST", "/plans", {"kind": "rebalance"})
    assert (await api.call("POST", "/plans", {"kind": "rebalance"}, token=ann)).status_code == 403
    assert await api.ok("GET", "/plans", token=ann) == []
    assert (await api.call("GET", f"/plans/{plan['id']}", token=ann)).status_code == 404
    assert (await api.call("POST", f"/plans/{plan['id']}/apply", token=ann)).status_code == 403
    for body in ({"kind": "evacuate"}, {"kind": "rebalance", "host": "h1"}, {"kind": "shuffle"}):
        assert (await api.call("POST", "/plans", body)).status_code == 400
    assert (await api.call("POST", "/plans", {"kind": "evacuate", "host": "nowhere"})).status_code == 404
    assert (await api.call("POST", "/plans", {"kind": "rebalance", "cluster": "nowhere"})).status_code == 404
    assert (await api.call("POST", "/plans/nothing/apply")).status_code == 404
