"""The API over simulated hosts, with a worker: into instances, why they are there, what happened to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest_asyncio

from analytics.client import AnalyticsClient
from analytics.database import Limits
from analytics.owner import AnalyticsOwner
from api import history_models, models
from api.app import create_app
from control import access, outbox
from core.states import Verb
from drivers.fake_world import world
from tests.integration.line import Line

TWO = {"instances": [
    {"name": "web", "image": "vm", "memory": "128MiB"}, {"name": "box", "image": "box", "memory": "64MiB"},
]}  # fmt: skip


@pytest_asyncio.fixture
async def client(line: Line) -> AsyncIterator[httpx.AsyncClient]:
    token = line.store.write_now(access.ensure_admin)
    context_client = AnalyticsClient(line.settings.paths.analytics_socket)
    app = create_app(line.settings, line.store, context_client, lambda: None)
    headers = {"Authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://rackflow/v1", headers=headers) as made:
        yield made
    await app.state.context.close()


async def ok(answer: httpx.Response) -> Any:
    assert answer.status_code < 300, answer.text
    return answer.json()


async def test_exec_and_logs(line: Line, client: httpx.AsyncClient) -> None:
    await line.run(Verb.DEPLOY, TWO)
    for name in ("web", "box"):
        done = await ok(await client.post(f"/instances/{name}/exec", json={"argv": ["echo", "hello"], "stdin": "x"}))
        models.Executed.model_validate(done)
        assert done["exit_status"] == 0
        logs = (await ok(await client.get(f"/instances/{name}/logs")))["text"]
        assert "booted" in logs
        assert (await ok(await client.get(f"/instances/{name}/logs?tail=1")))["text"].count("\n") == 1
    await line.run(Verb.SHUTDOWN, {"instances": ["web"]})
    refused = await client.post("/instances/web/exec", json={"argv": ["id"]})
    assert (refused.status_code, refused.json()["evidence"]["state"]) == (409, "off")


async def test_gone_host_is_unreachable(line: Line, client: httpx.AsyncClient) -> None:
    await line.run(Verb.DEPLOY, TWO)
    for host in world.hosts.values():
        world.cut(host.name)
    answer = await client.get("/instances/web/logs")
    assert (answer.status_code, answer.json()["code"]) == (503, "unreachable")
    assert answer.headers["retry-after"] == "1"


async def test_explain_and_history(line: Line, client: httpx.AsyncClient) -> None:
    def pump() -> None:
        rows = line.store.read_now(outbox.unmoved)
        owner.insert_outbox(rows)
        line.store.write_now(lambda c: outbox.mark_moved(c, [row["id"] for row in rows]))

    paths = line.settings.paths
    owner = AnalyticsOwner(paths.duckdb_file, paths.analytics_socket, limits=Limits(memory_mib=128), pump=pump)
    try:
        [deployed, _] = await line.run(Verb.DEPLOY, TWO)
        told = await ok(await client.get("/instances/web/explain"))
        assert told["host"] == line.instance("web")["host"]
        assert {entry["host"] for entry in told["hosts"]} == {"f0", "f1", "f2"}
        found = await ok(await client.get("/instances/web/history"))
        history_models.History.model_validate(found)
        states = [entry["to"] for entry in found["timeline"] if entry["kind"] == "lifecycle"]
        assert (states[0], states[-1], found["state"]) == ("pending", "running", "running")
        steps = {entry["step"]: entry for entry in found["timeline"] if entry["kind"] == "step"}
        assert list(steps) == ["place", "image", "volumes", "define", "start"]
        assert all(entry["outcome"] == "done" and entry["duration_s"] >= 0 for entry in steps.values())
        ended = [entry for entry in found["timeline"] if entry["kind"] == "operation"]
        assert [(entry["operation"], entry["to"]) for entry in ended] == [(deployed.id, "done")]
        await line.run(Verb.DELETE, {"instances": ["web"]})
        gone = await ok(await client.get("/instances/web/history"))
        assert (gone["instance_id"], gone["state"]) == (found["instance_id"], "deleted")
        await line.run(Verb.RECONCILE, {"hosts": []})
        took = await client.post("/query", json={"sql": "SELECT verb, step, driver, runs FROM step_durations"})
        assert ["deploy", "define", "fake", 2] in (await ok(took))["rows"]
        seen = await client.post("/query", json={"sql": "SELECT instance, state FROM instances_seen ORDER BY 1"})
        assert (await ok(seen))["rows"] == [["box", "running"], ["web", "deleted"]]
    finally:
        owner.close()
