"""Owner and client over the real socket: samples, features, history, errors, restart."""

from __future__ import annotations

import math
import stat
import threading
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from analytics.client import AnalyticsClient
from analytics.owner import AnalyticsOwner, _Turn
from analytics.query import to_json
from bench import planted
from core.errors import Invalid, NotFound, Unreachable
from tests.unit.analytics.rows import lifecycle, sample, step


def test_history_is_a_timeline(owner: AnalyticsOwner, client: AnalyticsClient) -> None:
    operation = {"id": 4, "at": lifecycle(4, "", "", s=3)["at"], "kind": "operation", "subject": "instance/i1",
                 "payload": {"operation": "op1", "verb": "deploy", "state": "done", "duration_s": 3.0}}  # fmt: skip
    owner.insert_outbox([
        operation, lifecycle(1, "", "pending"), step(2, "define", 0.5, s=1), lifecycle(3, "starting", "running", s=2),
    ])  # fmt: skip
    found = client.history("i1")
    assert {key: found[key] for key in ("instance_id", "instance", "owner", "host", "state")} == {
        "instance_id": "i1", "instance": "web", "owner": "ann", "host": "h1", "state": "running",
    }  # fmt: skip
    kinds = [(entry["kind"], entry.get("step") or entry.get("to")) for entry in found["timeline"]]
    assert kinds == [("lifecycle", "pending"), ("step", "define"), ("lifecycle", "running"), ("operation", "done")]
    assert found["timeline"][1]["at"] == "2026-11-23T08:00:01.000Z"
    assert client.history("web")["instance_id"] == "i1"
    with pytest.raises(NotFound):
        client.history("nobody")


def test_name_means_the_last_one_that_bore_it(owner: AnalyticsOwner, client: AnalyticsClient) -> None:
    owner.insert_outbox([lifecycle(1, "running", "deleted", of="i1"), lifecycle(2, "", "pending", of="i2", s=5)])
    assert client.history("web")["instance_id"] == "i2"


def test_answers_hold_what_waits_in_the_outbox(tmp_path: Path) -> None:
    """The pump runs before an answer, so that history right after a deploy is whole."""
    waiting = [lifecycle(1, "", "pending")]
    owner = AnalyticsOwner(tmp_path / "h.duckdb", tmp_path / "p.sock", pump=lambda: owner.insert_outbox(waiting))
    try:
        assert len(AnalyticsClient(tmp_path / "p.sock").history("i1")["timeline"]) == 1
    finally:
        owner.close()


def test_capacity_is_the_newest_sample(client: AnalyticsClient) -> None:
    now = datetime.now(UTC)
    client.put_usage([
        sample("h1", now - timedelta(minutes=1), memory_used_mib=1), sample("h1", now, cpu_used=None),
        sample("h2", now - timedelta(days=2)), sample("h1", now, instance_id="i1", memory_used_mib=7),
    ])  # fmt: skip
    [row] = client.capacity()
    assert (row["host"], row["memory_used_mib"], row["cpu_used"]) == ("h1", 1024, 1.0)


def test_features_follow_the_samples(client: AnalyticsClient, owner: AnalyticsOwner) -> None:
    now = datetime.now(UTC)
    client.put_usage([sample("h1", now - timedelta(minutes=n), cpu_used=float(n % 4)) for n in range(100)])
    client.put_usage([sample("silent", now - timedelta(hours=2))])
    client.flush()
    owner.features.touch()
    first = client.features()
    assert set(first["hosts"]) == {"h1"}
    assert first["hosts"]["h1"] | {"sampled_at": None} == {
        "cpu_used_ratio": 0.0, "cpu_used_ratio_p95": 0.75, "memory_used_mib": 1024, "memory_used_mib_p95": 1024.0,
        "samples": 100, "sampled_at": None,
    }  # fmt: skip
    client.put_usage([sample("h3", now)])
    deadline = time.monotonic() + 10
    while "h3" not in client.features()["hosts"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert first["version"] < client.features()["version"] < 2**31


def test_samples_are_written_without_being_asked_for(client: AnalyticsClient, owner: AnalyticsOwner) -> None:
    client.put_usage([sample("h1", datetime.now(UTC))])
    deadline = time.monotonic() + 5
    count = 0
    while not count:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        with owner.database.read() as cursor:
            cursor.execute("SELECT count(*) FROM usage")
            count = cursor.fetchall()[0][0]


def test_errors_cross_the_socket(client: AnalyticsClient) -> None:
    with pytest.raises(Invalid, match="only SELECT") as refused:
        client.query("DROP TABLE events")
    assert "SELECT * FROM capacity_now" in refused.value.fix
    with pytest.raises(Invalid, match="took longer than 1 s"):
        client.query("SELECT count(*) FROM range(10000000) a, range(10000000) b")
    with pytest.raises(Invalid, match="usage"):
        client.put_usage([{"host": "h1"}])


def test_a_slow_query_does_not_stop_inserts(client: AnalyticsClient, owner: AnalyticsOwner) -> None:
    def slow() -> None:
        with pytest.raises(Invalid):
            client.query("SELECT count(*) FROM range(10000000) a, range(10000000) b")

    thread = threading.Thread(target=slow)
    thread.start()
    started = time.perf_counter()
    owner.insert_outbox([lifecycle(1, "", "pending")])
    assert client.features()["hosts"] == {}
    assert time.perf_counter() - started < 0.9
    thread.join()


def test_gone_owner_is_unreachable_and_comes_back(tmp_path: Path) -> None:
    client = AnalyticsClient(tmp_path / "r.sock")
    with pytest.raises(Unreachable):
        client.features()
    for _ in range(2):
        owner = AnalyticsOwner(tmp_path / "h.duckdb", tmp_path / "r.sock")
        assert stat.S_IMODE((tmp_path / "r.sock").stat().st_mode) == 0o600
        assert client.features()["hosts"] == {}
        owner.close()
        with pytest.raises(Unreachable):
            client.put_usage([sample("h1", datetime.now(UTC))])


def test_values_become_json() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)
    assert to_json([at, date(2026, 1, 2), timedelta(seconds=1.5), Decimal("3"), Decimal("1.5"), b"\x01", math.nan,
                    {1: (True, None)}]) == [
        "2026-01-02T03:04:05.600Z", "2026-01-02", 1.5, 3, 1.5, "01", None, {"1": [True, None]},
    ]  # fmt: skip


def test_a_stop_ends_what_runs(tmp_path: Path) -> None:
    owner = AnalyticsOwner(tmp_path / "h.duckdb", tmp_path / "s.sock")
    refused: list[Exception] = []

    def ask() -> None:
        try:
            AnalyticsClient(tmp_path / "s.sock").query("SELECT count(*) FROM range(10000000) a, range(10000000) b")
        except (Invalid, Unreachable) as error:
            refused.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.5)
    started = time.perf_counter()
    owner.close()
    thread.join()
    assert time.perf_counter() - started < 5
    assert len(refused) == 1


def test_predictions_cross_the_socket_once_they_are_proven(client: AnalyticsClient, owner: AnalyticsOwner) -> None:
    planted.steps(owner.database, seed=1, count=6000, at=datetime.now(UTC))
    owner.learn(judge=False)
    assert client.features()["steps"] == []
    judged = {row["prediction"]: row for row in client.backtest()}
    assert judged["steps"]["beats"]
    assert judged["steps"]["error"] < judged["steps"]["baseline_error"]
    assert not judged["demand"]["beats"]
    owner.features.touch()
    time.sleep(2.1)
    found = client.features()
    assert {step["step"] for step in found["steps"]} == {"image", "define", "start"}
    assert found["hosts"]["h3"]["failure_ratio"] > 0.1
    asked = [{"verb": "deploy", "step": "start", "driver": "kvm", "host": "h1", "image": "img1"}, {"verb": "none"}]
    known, unknown = client.eta(asked)
    assert 0 < known["p50_s"] < known["p95_s"]
    assert unknown == {"p50_s": None, "p95_s": None}
    assert client.outlook() == []


def test_it_tells_since_when_clusters_were_sampled(client: AnalyticsClient, owner: AnalyticsOwner) -> None:
    assert client.status()["sampled_since"] is None
    planted.demand(owner.database, seed=1, at=datetime.now(UTC))
    assert datetime.fromisoformat(client.status()["sampled_since"]) < datetime.now(UTC) - timedelta(days=20)


def test_features_are_sent_once_per_version(owner: AnalyticsOwner) -> None:
    first = owner.features.get()
    assert owner.features.get(first["version"]) == {"version": first["version"]}
    assert owner.features.get(first["version"] - 1) == first


def test_the_owner_learns_and_judges_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analytics.owner.UPKEEP_S", 0.05)
    owner = AnalyticsOwner(tmp_path / "h.duckdb", tmp_path / "l.sock")
    planted.steps(owner.database, seed=1, count=6000, at=datetime.now(UTC))
    owner.start()
    try:
        deadline = time.monotonic() + 20
        while not (found := owner.features.get().get("steps")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert {step["step"] for step in found} == {"image", "define", "start"}
    finally:
        owner.close()


def test_what_took_long_is_done_less_often() -> None:
    turn = _Turn(0.05)
    assert turn.is_due()
    assert not turn.is_due()
    turn.rest(0.3)
    time.sleep(0.1)
    assert not turn.is_due()
    time.sleep(0.25)
    assert turn.is_due()
    turn.rest(0.0)
    time.sleep(0.06)
    assert turn.is_due()
