"""Lifetimes learned from a list of arrivals instead of the recorded history: what a simulation foretells with."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from analytics import lifetimes
from analytics.backtest import backtest
from analytics.database import Database, Limits
from analytics.learn import learn
from analytics.learned import Figures, learned_features
from analytics.record import insert_outbox

_PRESENT = datetime(2026, 1, 1, tzinfo=UTC)  # any moment: only differences count
_BATCH = 20_000


def learn_lifetimes(rows: Sequence[Mapping[str, Any]]) -> Figures:
    """Return {"used", "lifetimes"} as placement's features have them: only what beat its baseline on these arrivals.

    rows: name, arrival_s, lifetime_s (None: it never left), cpu, memory_mib, owner, template. The last arrival is the
    present: what left later was still running then.
    """
    present_s = max((row["arrival_s"] for row in rows), default=0.0)
    with tempfile.TemporaryDirectory(prefix="rackflow-simulate-") as folder:
        database = Database(Path(folder) / "lifetimes.duckdb", Limits())
        try:
            events = list(_events(rows, present_s))
            for first in range(0, len(events), _BATCH):
                insert_outbox(database, events[first : first + _BATCH])
            backtest(database, _PRESENT, (lifetimes.AT_START, lifetimes.AT_AGE))
            learn(database, _PRESENT, lifetimes.AT_START)
            told = learned_features(database)
            return {"used": told["used"], "lifetimes": told["lifetimes"]}
        finally:
            database.close()


def _events(rows: Sequence[Mapping[str, Any]], present_s: float) -> Iterator[dict[str, Any]]:
    """Yield what the outbox would have told of these instances."""
    for number, row in enumerate(rows):
        about = {key: row[key] for key in ("cpu", "memory_mib", "owner", "template")}
        begin_s = row["arrival_s"] - present_s
        end_s = None if row["lifetime_s"] is None else begin_s + row["lifetime_s"]
        changes = ((begin_s, "starting", "running"), (end_s, "running", "deleted"))
        for place, (at_s, before, after) in enumerate(changes):
            if at_s is not None and at_s <= 0:
                yield {
                    "id": 2 * number + place + 1, "at": _PRESENT + timedelta(seconds=at_s), "kind": "lifecycle",
                    "subject": f"instance/i{number}",
                    "payload": {"from": before, "to": after, "instance": row["name"], "host": "", **about},
                }  # fmt: skip
