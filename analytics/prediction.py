"""What a prediction is: SQL that learns from what happened until a moment, and SQL that judges it by what came then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from analytics.database import Database, rows_of


@dataclass(frozen=True)
class Prediction:
    """tables: name -> SELECT with $at, which sees nothing later than $at.

    judge: SELECT with $at and $until that learns in the same way and returns one row: cases, error, baseline_error and
    further figures worth telling. It looks at what happened from $at to $until, and follows that for follow_up more.
    """

    name: str
    tables: Mapping[str, str]
    judge: str
    unit: str  # of the error
    baseline: str  # the naive answer it has to beat, in words
    window: timedelta  # from $at to $until
    splits: int  # so many windows are judged, the latest one ending now
    follow_up: timedelta = timedelta(0)
    min_cases: int = 20


def used(database: Database) -> set[str]:
    """Return the names of the predictions that beat their baseline when they were judged last."""
    with database.read() as cursor:
        return {str(row["prediction"]) for row in rows_of(cursor, "SELECT prediction FROM backtests WHERE beats")}
