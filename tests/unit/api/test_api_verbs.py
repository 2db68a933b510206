"""Verbs out of the table, holding, recovery, schedules, drift's policy, what is asked of hosts."""

from __future__ import annotations

from typing import Any

import pytest

from api.rest import verbs
from blueprints.change import PARAMETERS, NothingMore
from control import drift, instances, operations, placing
from control.operations import Operation
from core.errors import HostFault
from core.states import InstanceState, OperationState, Verb
from tests.unit.api.rig import Rig

WEB = {"name": "web", "image": "tiny", "memory": "256MiB"}
WITH_BODY = [verb for verb, model in PARAMETERS.items() if model is not NothingMore and verb is not Verb.DELETE]


def _runs(c: Any, op: Operation) -> None:
    [outcome] = placing.place(c, [op])
    assert outcome.error is None
    instances.set_state(c, op.subject_id, InstanceState.RUNNING, epoch=op.epoch)


async def deploy(api: Rig, **spec: Any) -> str:
    """Deploy web; return its id."""
    await api.furnish()
    made = await api.ok("POST", "/instances", {**WEB, **spec})
    api.work(_runs)
    return str(made["operations"][0]["subject"]).removeprefix("instance/")


def hold_up(api: Rig) -> Operation:
    """Let what is pending end held, and its instance with it."""
    error = HostFault("h1 is full", "host/h1")
    [op] = api.store.write_now(lambda c: operations.claim_pending(c, api.worker))

    def end(c: Any) -> None:
        instances.set_state(c, op.subject_id, InstanceState.HELD, epoch=op.epoch, reason=error.message)
        operations.finish(c, op, OperationState.HELD, error=error)

    api.store.write_now(end)
    return op


async def test_every_verb_has_a_route_with_its_parameters(api: Rig) -> None:
    page = (await api.client.get("/v1/openapi.json")).json()
    assert {verb for verb in PARAMETERS if verb is not Verb.DELETE} == set(verbs.SAID)
    for verb, model in PARAMETERS.items():
        if verb is Verb.DELETE:
            continue
        described = page["paths"][f"/v1/instances/{{name}}/{verb}"]["post"]
        assert "\n" not in described["description"]
        assert "202" in described["responses"]
        assert ("requestBody" in described) is (model is not NothingMore), verb
        if "requestBody" in described:
            schema = described["requestBody"]["content"]["application/json"]["schema"]
            assert f"#/components/schemas/{model.__name__}" in str(schema), verb
            needed = any(field.is_required() for field in model.model_fields.values())
            assert described["requestBody"].get("required", False) is needed, verb
    assert page["paths"]["/v1/instances/{name}/attach-disk"]["post"]["operationId"] == "attach_disk"
    assert page["paths"]["/v1/instances/{name}/shutdown"]["post"]["operationId"] == "shutdown_instance"


@pytest.mark.parametrize(("verb", "body", "kept"), [
    ("shutdown", None, {}), ("shutdown", {"grace_s": 5}, {"grace_s": 5.0}), ("poweroff", None, {}),
    ("rename", {"name": "web2"}, {"name": "web2"}), ("resize", {"memory": "1GiB"}, {"memory_mib": 1024}),
    ("attach-disk", {"disk": {"name": "data", "size": "1GiB"}}, {"disk": {"name": "data", "size_mib": 1024}}),
    ("grow-disk", {"size": "2GiB"}, {"size_mib": 2048}), ("save-image", {"image": "copy"}, {"image": "copy"}),
    ("backup", {"keep": 3}, {"keep": 3}), ("stop", None, {}), ("undeploy", {}, {}),
])  # fmt: skip
async def test_a_verb_is_an_operation(api: Rig, verb: str, body: Any, kept: dict[str, Any]) -> None:
    await deploy(api)
    before = len(api.wakes)
    answer = await api.call("POST", f"/instances/web/{verb}", body)
    assert answer.status_code == 202, answer.text
    [asked] = answer.json()["operations"]
    assert (asked["verb"], asked["name"]) == (verb, "web")
    assert len(api.wakes) == before + 1
    shown = await api.ok("GET", f"/operations/{asked['id']}")
    assert kept.items() <= shown["parameters"].items()


@pytest.mark.parametrize("verb", WITH_BODY)
async def test_unknown_fields_are_refused_in_the_verbs_words(api: Rig, verb: Verb) -> None:
    answer = await api.call("POST", f"/instances/web/{verb}", {"zebra": 1})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    [said] = [wrong["message"] for wrong in answer.json()["evidence"]["errors"] if wrong["field"] == "zebra"]
    assert said.startswith("is not a known field; known are ")
    assert answer.json()["fix"] is None


async def test_words_depend_on_the_state(api: Rig) -> None:
    await deploy(api)
    assert (await api.call("POST", "/instances/web/failover", token=api.user("ann"))).status_code == 404
    refused = await api.call("POST", "/instances/web/resume")
    assert refused.status_code == 202
    api.work(lambda c, op: instances.set_state(c, op.subject_id, InstanceState.STOPPED, epoch=op.epoch))
    [op] = (await api.ok("POST", "/instances/web/start"))["operations"]
    assert op["verb"] == "restore"


async def test_hold_and_release(api: Rig) -> None:
    await api.furnish()
    await api.ok("POST", "/instances?hold=true", [WEB, {**WEB, "name": "db"}])
    assert {row["state"] for row in await api.ok("GET", "/instances")} == {"on-hold"}
    assert await api.ok("POST", "/instances/web/release") == {"changed": True}
    assert await api.ok("POST", "/instances/web/release") == {"changed": False}
    assert [op.subject_name for op in api.work(_runs)] == ["web"]
    assert await api.ok("POST", "/instances/db/hold") == {"changed": False}
    assert (await api.call("POST", "/instances/web/hold")).status_code == 409


async def test_retry_abandon_and_mark(api: Rig) -> None:
    await deploy(api)
    await api.ok("POST", "/instances/web/shutdown")
    op = hold_up(api)
    before = len(api.wakes)
    again = await api.ok("POST", f"/operations/{op.id}/retry")
    assert (again["state"], again["reason"], len(api.wakes)) == ("pending", "tried again by admin", before + 1)
    hold_up(api)
    assert (await api.ok("POST", f"/operations/{op.id}/abandon"))["state"] == "compensating"
    hold_up(api)
    assert (await api.call("POST", "/instances/web/mark", {"state": "stopped"})).status_code == 400
    assert (await api.call("POST", "/instances/web/mark", {"state": "off"}, token=api.user("ann"))).status_code == 403
    assert await api.ok("POST", "/instances/web/mark", {"state": "off", "reason": "I looked"}) == {"changed": True}
    shown = await api.ok("GET", "/instances/web")
    assert (shown["state"], shown["reason"]) == ("off", "marked by admin: I looked")
    assert (await api.call("POST", f"/operations/{op.id}/retry")).status_code == 409
    assert (await api.call("POST", "/operations/none/retry")).status_code == 404


async def test_snapshots_and_backups_are_listed(api: Rig) -> None:
    from control import backups, snapshots

    await deploy(api)
    await api.ok("POST", "/instances/web/snapshot", {"snapshot": "before"})
    api.work(lambda c, op: snapshots.record(c, op, op.parameters["snapshot"], "", False))
    [row] = await api.ok("GET", "/instances/web/snapshots")
    assert (row["name"], row["disk"], row["memory"]) == ("before", None, False)
    await api.ok("POST", "/instances/web/backup", {"backup": "b1"})
    files = [{"disk": "root", "name": "f", "format": "qcow2", "size_bytes": 7, "sha256": "a", "since": ""}]
    api.work(lambda c, op: backups.record(c, op, op.parameters["backup_id"], files))
    for path in ("/instances/web/backups", "/backups", "/backups?instance=web"):
        assert [(b["name"], b["state"], b["size_bytes"]) for b in await api.ok("GET", path)] == [("b1", "ready", 7)]
    bob = api.user("bob")
    assert await api.ok("GET", "/backups", token=bob) == []
    backup = (await api.ok("GET", "/backups"))[0]["id"]
    for method, path in (("POST", f"/backups/{backup}/test"), ("DELETE", f"/backups/{backup}")):
        assert (await api.call(method, path, token=bob)).status_code == 404
        [op] = (await api.ok(method, path))["operations"]
        assert (op["name"], (await api.ok("POST", f"/operations/{op['id']}/cancel"))["state"]) == ("b1", "cancelled")
    assert await api.ok("GET", "/backups?instance=other") == []
    assert (await api.call("GET", "/instances/web/snapshots", token=api.user("bob"))).status_code == 404


async def test_schedules(api: Rig) -> None:
    await deploy(api)
    daily = {"instance": "web", "verb": "backup", "parameters": {"keep": 7}, "every_s": 86400}
    made = await api.call("POST", "/schedules", daily)
    assert made.status_code == 201
    row = made.json()
    assert await api.ok("GET", "/schedules?instance=web") == [row]
    assert await api.ok("GET", "/schedules?instance=other") == []
    path = f"/schedules/{row['id']}"
    assert not (await api.ok("PATCH", path, {"enabled": False}))["enabled"]
    assert (await api.ok("GET", path))["parameters"] == {"keep": 7}
    for wrong in (
        {**daily, "verb": "deploy"}, {**daily, "parameters": {"kep": 7}}, {**daily, "every_s": 1},
        {**daily, "at": "2020-01-01T00:00:00Z"}, {**daily, "at": "2050-01-01T00:00:00"}, {**daily, "after_start_s": 1},
    ):  # fmt: skip
        assert (await api.call("POST", "/schedules", wrong)).status_code == 400, wrong
    assert await api.ok("DELETE", path) == {"deleted": row["id"]}
    assert (await api.call("GET", path)).status_code == 404


async def test_policy_of_drift(api: Rig) -> None:
    await api.furnish()
    row_id = api.store.write_now(lambda c: drift.open_(
        c, subject="instance/x", host="h1", kind="unknown", recorded={}, seen={}, policy="report"
    ))  # fmt: skip
    assert (await api.ok("PATCH", f"/drift/{row_id}", {"policy": "adopt"}))["policy"] == "adopt"
    assert (await api.ok("GET", f"/drift/{row_id}"))["policy"] == "adopt"
    assert (await api.call("PATCH", f"/drift/{row_id}", {"policy": "forget"})).status_code == 400
    assert (await api.call("PATCH", f"/drift/{row_id}", {"policy": "repair"}, token=api.user("ann"))).status_code == 403
    api.store.write_now(lambda c: drift.close(c, row_id, "gone"))
    assert (await api.call("PATCH", f"/drift/{row_id}", {"policy": "repair"})).status_code == 409


async def test_what_is_asked_of_hosts(api: Rig) -> None:
    await api.furnish(hosts_=("h1", "h2", "h3"))
    assert await api.ok("POST", "/hosts/h1/maintenance") == {"changed": True}
    assert await api.ok("POST", "/hosts/h1/maintenance") == {"changed": False}
    assert (await api.ok("GET", "/hosts/h1"))["state"] == "maintenance"
    [moving] = (await api.ok("POST", "/hosts/h2/evacuate", {"live": False}))["operations"]
    assert (moving["verb"], (await api.ok("GET", "/hosts/h2"))["state"]) == ("evacuate", "draining")
    assert (await api.call("POST", "/hosts/h2/evacuate")).status_code == 409
    body = {"instances": ["old", "db"], "names": {"old": "new"}}
    [taken] = (await api.ok("POST", "/hosts/h3/adopt", body))["operations"]
    assert (await api.ok("GET", f"/operations/{taken['id']}"))["parameters"] == body
    for wrong, new in (([], {}), (["a"], {"b": "c"}), (["a", "b"], {"b": "a"}), (["a"], {"a": "Not a name"})):
        answer = await api.call("POST", "/hosts/h1/adopt", {"instances": wrong, "names": new})
        assert answer.status_code == 400, answer.text
    [cut] = (await api.ok("POST", "/hosts/h1/fence"))["operations"]
    assert cut["verb"] == "fence"
    for path, method in (("configure", "POST"), ("configuration", "GET")):  # these are simulated ones
        answer = await api.call(method, f"/hosts/h1/{path}")
        assert (answer.status_code, answer.json()["code"]) == (501, "unsupported")
    ann = api.user("ann")
    for path in ("maintenance", "evacuate", "fence", "configure"):
        assert (await api.call("POST", f"/hosts/h1/{path}", token=ann)).status_code == 403
    assert (await api.call("GET", "/hosts/h1/foreign", token=ann)).status_code == 403
    assert (await api.call("GET", "/hosts/h1/foreign")).status_code == 501


async def test_a_console_needs_something_that_runs_and_a_driver_that_has_it(api: Rig) -> None:
    await api.furnish()
    await api.ok("POST", "/instances", WEB)
    assert (await api.call("POST", "/instances/web/console")).status_code == 409
    api.work(_runs)
    assert (await api.call("POST", "/instances/web/console", {"kind": "vnc"})).status_code == 501
    assert (await api.call("POST", "/instances/web/console", token=api.user("bob"))).status_code == 404
