"""Append history: outbox rows once each, usage samples as they come, both as Arrow batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
import pyarrow as pa

from analytics import machines
from analytics.database import Database
from core.errors import Invalid

_AT = pa.timestamp("us", "UTC")

USAGE = pa.schema([
    ("sampled_at", _AT), ("host", pa.string()), ("instance_id", pa.string()), ("cpus", pa.float64()),
    ("cpu_used", pa.float64()), ("memory_mib", pa.int64()), ("memory_used_mib", pa.int64()),
    ("disk_total_mib", pa.int64()), ("disk_free_mib", pa.int64()),
])  # fmt: skip

ALLOCATION = pa.schema([
    ("sampled_at", _AT), ("noun", pa.string()), ("name", pa.string()), ("host", pa.string()), ("cluster", pa.string()),
    ("resource", pa.string()), ("total", pa.float64()), ("used", pa.float64()),
])  # fmt: skip

_ROW = {"outbox_id", "occurred_at", "kind", "subject", "payload"}  # columns that are not taken out of the payload
_COMMON = [("outbox_id", pa.int64()), ("occurred_at", _AT), ("kind", pa.string()), ("subject", pa.string())]
EVENTS = pa.schema([
    *_COMMON, ("instance_id", pa.string()), ("instance", pa.string()), ("owner", pa.string()), ("host", pa.string()),
    ("image", pa.string()), ("from_state", pa.string()), ("to_state", pa.string()), ("operation_id", pa.string()),
    ("verb", pa.string()), ("cpu", pa.float64()), ("memory_mib", pa.int64()), ("waited_s", pa.float64()),
    ("duration_s", pa.float64()), ("reason", pa.string()), ("error", pa.string()), ("payload", pa.string()),
    ("template", pa.string()),
])  # fmt: skip
STEPS = pa.schema([
    *_COMMON, ("operation_id", pa.string()), ("verb", pa.string()), ("instance_id", pa.string()),
    ("instance", pa.string()), ("host", pa.string()), ("driver", pa.string()), ("image", pa.string()),
    ("step", pa.string()), ("sequence", pa.int32()), ("attempt", pa.int32()), ("duration_s", pa.float64()),
    ("outcome", pa.string()), ("changed", pa.bool_()), ("payload", pa.string()),
])  # fmt: skip

_PYTHON: dict[pa.DataType, Callable[[Any], Any]] = {
    pa.string(): str, pa.int64(): int, pa.int32(): int, pa.float64(): float, pa.bool_(): bool, _AT: lambda at: at,
}  # fmt: skip

# Column -> names that a payload may use for it, first found wins; a column that is not here bears its own name.
_ALIASES: dict[str, tuple[str, ...]] = {
    "from_state": ("from_state", "from"),
    "to_state": ("to_state", "to", "state"),
    "operation_id": ("operation_id", "operation"),
    "step": ("step", "name"),
    "template": ("template", "image"),
}


def insert_outbox(database: Database, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert outbox rows {id, at, kind, subject, payload}, each id once; return how many rows of tables were new."""
    once = {int(row["id"]): row for row in rows}
    steps = [_flat(row, STEPS) for row in once.values() if row["kind"] == "step"]
    looks = [row for row in once.values() if row["kind"] == machines.KIND]
    events = [_flat(row, EVENTS) for row in once.values() if row["kind"] not in ("step", machines.KIND)]
    sensors = [one for row in looks for one in machines.sensor_rows(row)]
    log = [one for row in looks for one in machines.log_rows(row)]
    with database.write() as cursor:
        _insert_new(cursor, "machine_log", log, machines.LOG)
        seen = _insert_new(cursor, "machine_sensors", sensors, machines.SENSORS)
        return seen + _insert_new(cursor, "events", events, EVENTS) + _insert_new(cursor, "steps", steps, STEPS)


def usage_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return usage rows {at, host, instance_id, cpus, …} as an Arrow table. Raise Invalid."""
    try:
        return pa.Table.from_pylist([{**row, "sampled_at": row["at"]} for row in rows], schema=USAGE)
    except (KeyError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise Invalid(f"not a usage sample: {error}", "usage") from error


def insert_usage(database: Database, table: pa.Table) -> int:
    """Append usage samples; return how many."""
    with database.write() as cursor:
        append(cursor, "usage", table)
    return int(table.num_rows)


def insert_allocation(database: Database, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append what can be given away and what is: {sampled_at, noun, name, host, cluster, resource, total, used}."""
    with database.write() as cursor:
        append(cursor, "allocation", pa.Table.from_pylist(list(rows), schema=ALLOCATION))


def append(cursor: Any, table: str, batch: pa.Table) -> None:
    """Insert an Arrow table into a table of ours, by the names of its columns."""
    cursor.register("batch", batch)
    try:
        cursor.execute(f"INSERT INTO {table} BY NAME SELECT * FROM batch")
    finally:
        cursor.unregister("batch")


def _insert_new(cursor: Any, table: str, rows: list[dict[str, Any]], schema: pa.Schema) -> int:
    """Insert those whose outbox_id is not there yet. Ids grow, so the range prunes to the newest row groups."""
    if not rows:
        return 0
    ids = [row["outbox_id"] for row in rows]
    cursor.execute(f"SELECT outbox_id FROM {table} WHERE outbox_id BETWEEN ? AND ?", [min(ids), max(ids)])
    there = {found for (found,) in cursor.fetchall()}
    new = [row for row in rows if row["outbox_id"] not in there]
    if new:
        columns = schema if table != "steps" else pa.schema([field for field in schema if field.name != "kind"])
        append(cursor, table, pa.Table.from_pylist(new, schema=columns))
    return len(new)


def _flat(row: Mapping[str, Any], schema: pa.Schema) -> dict[str, Any]:
    payload = row["payload"]
    found = {name: pick(payload) for name, pick in _PICKS[schema is STEPS]}
    subject = str(row["subject"])
    if subject.startswith("instance/"):
        found["instance_id"] = found["instance_id"] or subject.removeprefix("instance/")
        found["instance"] = found["instance"] or payload.get("name")
    at = row["at"] if isinstance(row["at"], datetime) else datetime.fromisoformat(row["at"])
    found |= {"outbox_id": int(row["id"]), "occurred_at": at, "kind": row["kind"], "subject": subject}
    return {**found, "payload": orjson.dumps(payload, default=str, option=orjson.OPT_NON_STR_KEYS).decode()}


def _pick(column: str, kind: pa.DataType) -> Callable[[Mapping[str, Any]], Any]:
    """Return what takes a column's value out of a payload; an odd one must not stop the rows behind it."""
    keys, convert = _ALIASES.get(column, (column,)), _PYTHON[kind]

    def pick(payload: Mapping[str, Any]) -> Any:
        for key in keys:
            if (value := payload.get(key)) is not None:
                break
        else:
            return None
        if column == "error" and isinstance(value, Mapping):
            return f"{value.get('code', 'error')}: {value.get('message', '')}"
        try:
            return convert(value)
        except (TypeError, ValueError):
            return None  # it still stands in payload

    return pick


_PICKS = [  # of events, of steps
    [(field.name, _pick(field.name, field.type)) for field in schema if field.name not in _ROW]
    for schema in (EVENTS, STEPS)
]
