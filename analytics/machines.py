"""What BMCs told of their machines: sensors and log entries out of looks, and the health of one machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from analytics.database import Database, rows_of
from analytics.query import to_json

KIND = "machine-health"  # of an outbox row: one look at one BMC
ANSWERS = "BMC answers"  # the sensor that every machine has: 1 or 0
_AT = pa.timestamp("us", "UTC")
_COMMON = [
    ("outbox_id", pa.int64()), ("sampled_at", _AT), ("machine_id", pa.string()), ("machine", pa.string()),
]  # fmt: skip
SENSORS = pa.schema([
    *_COMMON, ("sensor", pa.string()), ("value", pa.float64()), ("unit", pa.string()), ("health", pa.string()),
])  # fmt: skip
LOG = pa.schema([
    *_COMMON, ("entry", pa.string()), ("logged_at", _AT), ("severity", pa.string()), ("message", pa.string()),
])  # fmt: skip

_HEALTH = """
SELECT sensor, value, unit, health, sampled_at, min_week, avg_week, max_week, samples FROM machine_health
WHERE machine_id = $machine_id ORDER BY sensor <> 'BMC answers', sensor
"""
_ENTRIES = """
SELECT entry, any_value(logged_at) AS logged_at, severity, message, min(sampled_at) AS seen_at FROM machine_log
WHERE machine_id = $machine_id GROUP BY entry, severity, message ORDER BY seen_at DESC, try_cast(entry AS BIGINT) DESC
LIMIT $limit
"""
_HISTORY = """
SELECT sampled_at, value, health FROM machine_sensors WHERE machine_id = $machine_id AND sensor = $sensor
ORDER BY sampled_at DESC LIMIT $limit
"""


def sensor_rows(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row for each sensor of a look, and one that says whether the BMC answered."""
    payload, common = row["payload"], _common(row)
    answered = payload.get("error") is None
    verdict = "OK" if answered else "Critical"
    yield {**common, "sensor": ANSWERS, "value": float(answered), "unit": "", "health": verdict}
    for one in payload.get("sensors", ()):
        yield {**common, "sensor": one["name"], "value": one["value"], "unit": one["unit"], "health": one["health"]}


def log_rows(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row for each new entry of the event log."""
    for one in row["payload"].get("events", ()):
        at = datetime.fromisoformat(one["at"]) if one["at"] else None
        yield {**_common(row), "entry": one["id"], "logged_at": at, "severity": one["severity"],
               "message": one["message"]}  # fmt: skip


def _common(row: Mapping[str, Any]) -> dict[str, Any]:
    at = row["at"] if isinstance(row["at"], datetime) else datetime.fromisoformat(row["at"])
    return {"outbox_id": int(row["id"]), "sampled_at": at, "machine_id": str(row["subject"]).partition("/")[2],
            "machine": row["payload"]["machine"]}  # fmt: skip


def health(database: Database, machine_id: str, sensor: str | None, limit: int) -> dict[str, Any]:
    """Return each sensor's newest reading with its week, and the event log; of one sensor its readings."""
    with database.read() as cursor:
        if sensor is not None:
            asked = {"machine_id": machine_id, "sensor": sensor, "limit": limit}
            return {"readings": _json(rows_of(cursor, _HISTORY, asked))}
        sensors = _json(rows_of(cursor, _HEALTH, {"machine_id": machine_id}))
        log = _json(rows_of(cursor, _ENTRIES, {"machine_id": machine_id, "limit": limit}))
    return {"sensors": sensors, "log": log}


def _json(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{key: to_json(value) for key, value in row.items()} for row in rows]
