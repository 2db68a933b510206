"""Who may, and how refusals look: problem+json, each with code, field paths and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from api import models
from api.limits import MAX_BYTES
from core.errors import Busy, HostFault
from tests.unit.api.rig import Rig

WEB = {"name": "web", "image": "tiny"}


async def refused(api: Rig, status: int, code: str, *request: Any, **more: Any) -> dict[str, Any]:
    """Send what must be refused so, and return the problem."""
    answer = await api.call(*request, **more)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    models.Problem.model_validate(problem)
    assert (problem["code"], problem["status"]) == (code, status)
    return problem


@pytest.mark.parametrize("token", ["", "rf_wrong", "x" * 10_000])
async def test_unknown_callers(api: Rig, token: str) -> None:
    await refused(api, 401, "denied", "GET", "/instances", token=token)
    assert (await api.call("GET", "/instances", token=token)).headers["www-authenticate"] == "Bearer"


async def test_health_is_open(api: Rig) -> None:
    assert (await api.ok("GET", "/health", token=""))["status"] == "ok"


@pytest.mark.parametrize("path", [
    "/hosts", "/images", "/networks", "/datastores", "/clusters", "/operations", "/requests", "/capacity", "/drift",
    "/status",
    "/instances/web/explain", "/instances/web/history", "/instances/web/logs", "/hosts/scan?address=127.0.0.1",
])  # fmt: skip
async def test_everything_else_asks_who(api: Rig, path: str) -> None:
    await refused(api, 401, "denied", "GET", path, token="")


@pytest.mark.parametrize(("body", "field", "said"), [
    ({"name": "web"}, "image", "is missing"),
    ({**WEB, "memory": "many"}, "memory", "size"),
    ({**WEB, "memory": -5}, "memory", "size"),
    ({**WEB, "cpu": 0}, "cpu", "must be more than 0"),
    ({**WEB, "memroy": 5}, "memroy", "did you mean 'memory'"),
    ({**WEB, "name": "Web!"}, "name", "lower case"),
    ({**WEB, "kind": "vms"}, "kind", "must be 'vm' or 'container'"),
    ([WEB, {"name": "db"}], "[db].image", "is missing"),
    ([WEB, {**WEB, "disks": [{"name": "d", "size": "0"}]}], "[web].disks[d].size", "more than 0"),
    ([], "", ""),
    ("web", "", "must be a mapping"),
    (None, "", "missing"),
])  # fmt: skip
async def test_bad_specs_name_the_field(api: Rig, body: Any, field: str, said: str) -> None:
    problem = await refused(api, 400, "invalid", "POST", "/instances", body)
    assert [(e["field"], said in e["message"]) for e in problem["evidence"]["errors"]] == [(field, True)], problem


async def test_not_json(api: Rig) -> None:
    headers = {"Authorization": f"Bearer {api.token}", "Content-Type": "application/json"}
    answer = await api.client.post("/v1/instances", content=b"{oops", headers=headers)
    assert answer.status_code == 400
    assert "is not JSON" in answer.json()["message"]


@pytest.mark.parametrize(("path", "field"), [
    ("/instances?limit=0", "limit"), ("/instances?limit=many", "limit"), ("/instances?label=x", "label"),
    ("/hosts/scan?address=127.0.0.1&port=0", "port"),
])  # fmt: skip
async def test_bad_parameters(api: Rig, path: str, field: str) -> None:
    problem = await refused(api, 400, "invalid", "GET", path)
    assert [e["field"] for e in problem["evidence"]["errors"]] == [field]


async def test_bad_blueprint(api: Rig) -> None:
    body = {"blueprint": {"instances": [{"name": "a", "image": "x", "cpu": -1}], "host": []}}
    for path in ("/apply", "/plan"):
        problem = await refused(api, 400, "invalid", "POST", path, body)
        assert {e["field"] for e in problem["evidence"]["errors"]} == {"host", "instances[a].cpu"}


@pytest.mark.parametrize("path", [
    "/instances/no", "/instances/no/explain", "/instances/no/logs", "/hosts/no", "/images/no", "/networks/no",
    "/datastores/no", "/clusters/no", "/operations/no", "/requests/no", "/schema/no", "/nothing",
])  # fmt: skip
async def test_not_found(api: Rig, path: str) -> None:
    await refused(api, 404, "not-found", "GET", path)


async def test_wrong_method(api: Rig) -> None:
    await refused(api, 405, "unsupported", "PUT", "/instances", WEB)


async def test_users_may_not_change_the_cloud(api: Rig) -> None:
    token = api.user("ann")
    await api.furnish()
    for request in (
        ("POST", "/networks", {"name": "n", "bridge": "br1", "addressing": "dhcp"}), ("DELETE", "/networks/lan"),
        ("POST", "/clusters", {"name": "c"}), ("POST", "/datastores", {"name": "d", "path": "/d"}),
        ("POST", "/hosts", {"name": "h9", "address": "10.0.0.9"}), ("POST", "/hosts/h1/disable"),
        ("DELETE", "/hosts/h1"),
        ("POST", "/images", {"name": "i", "source": "/i"}), ("DELETE", "/images/tiny"), ("POST", "/reconcile"),
        ("POST", "/query", {"sql": "SELECT 1"}), ("GET", "/hosts/scan?address=127.0.0.1"),
    ):  # fmt: skip
        await refused(api, 403, "denied", *request, token=token)


async def test_users_see_and_touch_their_own_only(api: Rig) -> None:
    await api.furnish()
    ann, bob = api.user("ann"), api.user("bob")
    made = await api.ok("POST", "/instances", WEB, token=ann)
    assert [row["name"] for row in await api.ok("GET", "/instances", token=ann)] == ["web"]
    assert [row["owner"] for row in await api.ok("GET", "/instances")] == ["ann"]
    assert await api.ok("GET", "/instances", token=bob) == []
    assert await api.ok("GET", "/operations", token=bob) == []
    for request in (
        ("GET", "/instances/web"), ("DELETE", "/instances/web"), ("POST", "/instances/web/shutdown"),
        ("GET", "/instances/web/logs"),
        ("POST", "/instances/web/exec", {"argv": ["id"]}), ("GET", f"/requests/{made['request']}"),
        ("GET", f"/operations/{made['operations'][0]['id']}"),
    ):  # fmt: skip
        await refused(api, 404, "not-found", *request, token=bob)
    cancel = await api.call("POST", f"/operations/{made['operations'][0]['id']}/cancel", token=bob)
    assert cancel.status_code in (403, 404)


async def test_errors_of_ours_keep_their_words(api: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(_: Any) -> None:
        raise Busy("held", "host/h1", {"by": "w1"}, "wait")

    monkeypatch.setattr("api.rest.cloud.overview.counts", busy)
    problem = await refused(api, 503, "busy", "GET", "/status")
    assert (problem["message"], problem["subject"], problem["fix"]) == ("held", "host/h1", "wait")
    assert (problem["evidence"], problem["safe_to_retry"]) == ({"by": "w1"}, True)
    assert problem["type"] == "urn:rackflow:error:busy"

    def fault(_: Any) -> None:
        raise HostFault("broken")

    monkeypatch.setattr("api.rest.cloud.overview.counts", fault)
    assert (await refused(api, 409, "host-fault", "GET", "/status"))["safe_to_retry"] is False


async def test_bugs_are_logged_under_an_id(
    api: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bug(_: Any) -> None:
        raise ZeroDivisionError("secret inside")

    monkeypatch.setattr("api.rest.cloud.overview.counts", bug)
    problem = await refused(api, 500, "error", "GET", "/status")
    assert "secret" not in str(problem)
    assert problem["evidence"]["id"] in caplog.text
    assert "secret inside" in caplog.text


async def test_large_bodies_are_refused(api: Rig) -> None:
    headers = {"Authorization": f"Bearer {api.token}", "Content-Type": "application/json"}
    answer = await api.client.post("/v1/instances", content=b" " * (MAX_BYTES + 1), headers=headers)
    assert answer.status_code == 413

    async def parts() -> Any:
        for _ in range(MAX_BYTES // 2**20 + 2):
            yield b" " * 2**20

    answer = await api.client.post("/v1/instances", content=parts(), headers=headers)
    assert answer.status_code == 400


async def test_text_that_no_encoding_knows(api: Rig) -> None:
    headers = {"Authorization": f"Bearer {api.token}", "Content-Type": "application/json"}
    answer = await api.client.post("/v1/instances", content=b'{"name": "\\ud800", "image": "tiny"}', headers=headers)
    assert (answer.status_code, answer.json()["evidence"]["errors"][0]["field"]) == (400, "name")
