"""What happened to one instance, in order: state changes, operations, steps and how long each took."""

from __future__ import annotations

from typing import Any

from analytics.database import Database, rows_of
from analytics.query import to_json
from core.errors import NotFound

_TIMELINE = """
SELECT occurred_at, kind, verb, step, from_state, to_state, host, attempt, outcome, duration_s, reason, error,
       operation_id, owner, instance
FROM instance_history WHERE instance_id = ? ORDER BY occurred_at, outbox_id
"""
_BY_NAME = """
SELECT instance_id FROM instance_history WHERE instance = ? GROUP BY instance_id
ORDER BY max(occurred_at) DESC, instance_id DESC LIMIT 1
"""


def history(database: Database, instance: str) -> dict[str, Any]:
    """Return {"instance_id", "instance", "owner", "host", "state", "timeline": […]} by id, or by the name last borne.

    Each entry has at, kind (lifecycle, operation, step, …) and what applies of verb, step, from, to, host, attempt,
    outcome, duration_s, reason, error, operation. Raise NotFound.
    """
    with database.read() as cursor:
        found, rows = instance, rows_of(cursor, _TIMELINE, [instance])
        if not rows:
            named = rows_of(cursor, _BY_NAME, [instance])
            if not named:
                raise NotFound(
                    f"there is no history of an instance {instance}", f"instance/{instance}", {},
                    "rackflow instance list shows them",
                )  # fmt: skip
            found = str(named[0]["instance_id"])
            rows = rows_of(cursor, _TIMELINE, [found])
    states = [row["to_state"] for row in rows if row["kind"] == "lifecycle" and row["to_state"]]
    return {"instance_id": found, "instance": _last(rows, "instance"), "owner": _last(rows, "owner"),
            "host": _last(rows, "host"), "state": states[-1] if states else None,
            "timeline": [_entry(row) for row in rows]}  # fmt: skip


def _last(rows: list[dict[str, Any]], column: str) -> Any:
    return next((row[column] for row in reversed(rows) if row[column]), None)


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    names = {"occurred_at": "at", "from_state": "from", "to_state": "to", "operation_id": "operation"}
    kept = {names.get(key, key): to_json(value) for key, value in row.items() if key not in ("owner", "instance")}
    return {key: value for key, value in kept.items() if value not in (None, "")}
