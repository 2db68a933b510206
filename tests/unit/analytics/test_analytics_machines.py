"""What BMCs told: sensors and log entries out of looks, once each."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from analytics.database import Database
from analytics.machines import health
from analytics.record import insert_outbox
from analytics.retention import SENSORS_DAYS, roll_up
from core.clock import now

LOOK: dict[str, Any] = {
    "machine": "m1", "power": "on", "error": None,
    "sensors": [{"name": "Intake", "value": 31.0, "unit": "celsius", "health": "OK"}], "events": [],
}  # fmt: skip


def look(number: int, hours_ago: float, **more: Any) -> dict[str, Any]:
    at = now() - timedelta(hours=hours_ago)
    return {"id": number, "at": at, "kind": "machine-health", "subject": "machine/06m1", "payload": {**LOOK, **more}}


def hot(celsius: float, verdict: str = "OK") -> list[dict[str, Any]]:
    return [{"name": "Intake", "value": celsius, "unit": "celsius", "health": verdict}]


def test_a_week_of_looks(database: Database) -> None:
    entry = {"id": "7", "at": None, "severity": "Warning", "message": "fan 2 failed"}
    rows = [
        look(1, 24 * 10, sensors=hot(99.0)), look(2, 3), look(3, 2, sensors=hot(47.0, "Critical"), events=[entry]),
        look(4, 1, sensors=[], events=[entry], error={"code": "unreachable", "message": "no answer"}),
    ]  # fmt: skip
    assert insert_outbox(database, rows) == 7
    assert insert_outbox(database, rows) == 0
    found = health(database, "06m1", None, 10)
    answers, intake = found["sensors"]
    assert (answers["sensor"], answers["value"], answers["health"]) == ("BMC answers", 0.0, "Critical")
    assert (intake["value"], intake["health"], intake["samples"]) == (47.0, "Critical", 2)
    assert (intake["min_week"], intake["avg_week"], intake["max_week"]) == (31.0, 39.0, 47.0)
    assert [(one["entry"], one["message"]) for one in found["log"]] == [("7", "fan 2 failed")]
    readings = health(database, "06m1", "Intake", 2)["readings"]
    assert [one["value"] for one in readings] == [47.0, 31.0]
    assert health(database, "other", None, 10) == {"sensors": [], "log": []}


def test_old_readings_go(database: Database, tmp_path: Path) -> None:
    insert_outbox(database, [look(1, 24 * (SENSORS_DAYS + 1)), look(2, 24)])
    roll_up(database, now(), (7, 30, 400))
    assert len(health(database, "06m1", "Intake", 10)["readings"]) == 1
