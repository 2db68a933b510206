"""What was measured and learned, over HTTP: who may see it, and that it is what the history holds."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pyarrow.parquet as parquet
import pytest

from analytics.owner import AnalyticsOwner
from api import history_models, ledger_models
from bench import planted
from control import operations, outbox
from tests.unit.api.rig import Rig

WEB = {"name": "web", "image": "tiny"}


async def test_usage_of_hosts_and_of_ones_own_instances(api: Rig, history: AnalyticsOwner) -> None:
    await api.furnish()
    ann, bob = api.user("ann"), api.user("bob")
    await api.ok("POST", "/instances", WEB, token=ann)
    [web] = await api.ok("GET", "/instances", token=ann)
    sample = {"at": datetime.now(UTC), "host": "h1", "instance_id": web["id"], "cpus": 2.0, "cpu_used": 0.5,
              "memory_mib": 512, "memory_used_mib": 100}  # fmt: skip
    whole = {**sample, "instance_id": None, "cpus": 8.0, "cpu_used": 4.0}
    api.app.state.context.analytics.put_usage([sample, whole, {**sample, "instance_id": "of nobody"}])
    told = await api.ok("GET", "/usage", token=ann)
    history_models.Usage.model_validate(told)
    assert [(row["instance"], row["owner"], row["cpu_used"]) for row in told["instances"]] == [("web", "ann", 0.5)]
    assert [(row["host"], row["cpu_used"]) for row in told["hosts"]] == [("h1", 4.0)]
    assert (await api.ok("GET", "/usage", token=bob))["instances"] == []


async def test_forecast_backtest_and_regressions(api: Rig, history: AnalyticsOwner) -> None:
    now = datetime.now(UTC)
    planted.demand(history.database, seed=1, at=now)
    judged = {row["prediction"]: row for row in await api.ok("POST", "/history/backtest")}
    for row in judged.values():
        history_models.BacktestRow.model_validate(row)
    assert judged["demand"]["beats"]
    assert judged["demand"]["error"] < judged["demand"]["baseline_error"]
    assert not judged["steps"]["beats"]
    rows = {row["cluster"]: row for row in await api.ok("GET", "/capacity/forecast", token=api.user("ann"))}
    for row in rows.values():
        history_models.OutlookRow.model_validate(row)
    assert rows["growing"]["proven"]
    assert rows["growing"]["earliest_at"] <= rows["growing"]["runs_out_at"] <= rows["growing"]["latest_at"]
    assert rows["shrinking"]["runs_out_at"] is None
    assert await api.ok("GET", "/history/regressions") == []


async def test_a_step_that_became_slow(api: Rig, history: AnalyticsOwner) -> None:
    now = datetime.now(UTC)
    history.insert_outbox([
        planted.step(n, now - n * timedelta(hours=2), "start", host, "tiny", 9.0 if host == "h1" and n < 40 else 3.0)
        for n, host in enumerate(["h1", "h2"] * 60, 1)
    ])  # fmt: skip
    [found] = await api.ok("GET", "/history/regressions")
    history_models.RegressionRow.model_validate(found)
    assert (found["host"], found["step"], found["ratio"], found["others_ratio"]) == ("h1", "start", 3.0, 1.0)


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/history/backtest"), ("GET", "/history/regressions"), ("GET", "/history/tables/events"),
     ("POST", "/history/rebuild")],
)  # fmt: skip
async def test_everybodys_history_is_not_for_users(api: Rig, history: AnalyticsOwner, method: str, path: str) -> None:
    refused = await api.call(method, path, token=api.user("ann"))
    assert (refused.status_code, refused.json()["code"]) == (403, "denied")


async def test_export_is_parquet(api: Rig, history: AnalyticsOwner) -> None:
    planted.steps(history.database, seed=1, count=500)
    answer = await api.call("GET", "/history/tables/steps")
    assert answer.status_code == 200
    table = parquet.read_table(io.BytesIO(answer.content))
    assert (table.num_rows, set(table["verb"].to_pylist())) == (500, {"deploy"})
    empty = parquet.read_table(io.BytesIO((await api.call("GET", "/history/tables/usage_day")).content))
    assert (empty.num_rows, "began_at" in empty.column_names) == (0, True)
    for none in ("nothing", "learned_steps"):
        assert (await api.call("GET", f"/history/tables/{none}")).status_code == 404


async def test_a_lost_history_is_filled_again(api: Rig, history: AnalyticsOwner) -> None:
    await api.furnish()
    await api.ok("POST", "/instances", WEB)
    query = {"sql": "SELECT count(*), count(DISTINCT outbox_id) FROM events"}
    [[before, _]] = (await api.ok("POST", "/query", query))["rows"]
    assert before > 0
    with history.database.write() as cursor:
        cursor.execute("DELETE FROM events WHERE outbox_id % 2 = 0")
    assert (await api.ok("POST", "/query", query))["rows"] != [[before, before]]
    told = await api.ok("POST", "/history/rebuild")
    assert told["events"] >= before
    assert (await api.ok("POST", "/query", query))["rows"] == [[before, before]]
    assert await api.store.read(lambda c: outbox.unmoved(c, 1)) == []


async def test_eta_of_what_runs(api: Rig, history: AnalyticsOwner) -> None:
    await api.furnish()
    now = datetime.now(UTC)
    history.insert_outbox([
        planted.step(100_000 + n, now - n * timedelta(minutes=1), name, "h1", "tiny", took_s)
        for n, (name, took_s) in enumerate([("place", 1.0), ("image", 20.0), ("start", 4.0)] * 30)
    ])  # fmt: skip
    history.learn(judge=False)
    await api.ok("POST", "/instances", WEB)
    [waits] = await api.ok("GET", "/operations?verb=deploy")
    assert await api.ok("GET", f"/operations/eta?ids={waits['id']}") == []  # nobody works at it
    [op] = api.store.write_now(lambda c: operations.claim_pending(c, api.worker))
    api.store.write_now(lambda c: operations.begin_step(c, op, 1, "place"))
    api.store.write_now(lambda c: operations.end_step(c, op, 1, changed=True))
    api.store.write_now(lambda c: operations.begin_step(c, op, 2, "image", "h1"))
    [row] = await api.ok("GET", f"/operations/eta?ids={op.id}")
    assert ledger_models.Eta.model_validate(row).id == op.id
    assert row["left_s"] == pytest.approx(24.0, abs=1.0)
    assert row["left_p95_s"] >= row["left_s"]
    assert await api.ok("GET", f"/operations/eta?ids={op.id}", token=api.user("bob")) == []
