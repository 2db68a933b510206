"""Judge predictions by the past: learn up to a moment, compare with what came after, beside a naive baseline."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from analytics.database import Database, rows_of
from analytics.learn import PREDICTIONS
from analytics.prediction import Prediction
from analytics.query import to_json

MARGIN = 0.98  # an error has to be smaller than so much of the baseline's


def backtest(database: Database, at: datetime, predictions: Sequence[Prediction] = PREDICTIONS) -> list[dict[str, Any]]:
    """Judge predictions by what happened before a moment, keep the outcome in the table backtests and return it.

    Each row: prediction, tested_at, cases, error, baseline_error (null without cases), unit, baseline, detail, beats.
    """
    rows = [_judged(database, at, prediction) for prediction in predictions]
    with database.write() as cursor:
        for row in rows:
            cursor.execute("DELETE FROM backtests WHERE prediction = ?", [row["prediction"]])
            cursor.execute(
                f"INSERT INTO backtests BY NAME SELECT {', '.join(f'${key} AS {key}' for key in row)}", row
            )
    return [{key: to_json(value) for key, value in row.items()} for row in rows]


def _judged(database: Database, at: datetime, prediction: Prediction) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    for split in range(prediction.splits):
        until = at - prediction.follow_up - split * prediction.window
        with database.read() as cursor:
            found += rows_of(cursor, prediction.judge, {"at": until - prediction.window, "until": until})
    cases = sum(row["cases"] for row in found)
    means = {key: _mean(found, key) for key in found[0] if key != "cases"}
    error, naive = means.pop("error"), means.pop("baseline_error")
    beats = error is not None and naive is not None and cases >= prediction.min_cases and error < MARGIN * naive
    return {
        "prediction": prediction.name, "tested_at": at, "cases": cases, "error": error, "baseline_error": naive,
        "unit": prediction.unit, "baseline": prediction.baseline,
        "detail": ", ".join(f"{key} {value:.3f}" for key, value in means.items() if value is not None),
        "beats": beats,
    }  # fmt: skip


def _mean(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    """Return the mean of a figure over the windows, by their cases."""
    told = [(row[key], row["cases"]) for row in rows if row[key] is not None and row["cases"]]
    return sum(value * cases for value, cases in told) / sum(cases for _, cases in told) if told else None
