"""Learn from the history, and say what was learned: tables of figures, worked out anew from time to time."""

from __future__ import annotations

from datetime import datetime

from analytics import durations, failures, forecast, lifetimes, overcommit
from analytics.database import Database
from analytics.prediction import Prediction
from analytics.record import append

PREDICTIONS: tuple[Prediction, ...] = (
    overcommit.USE, durations.STEPS, failures.OF_HOSTS, failures.OF_IMAGES, lifetimes.AT_START, lifetimes.AT_AGE,
    forecast.DEMAND,
)  # fmt: skip


def learn(database: Database, at: datetime, prediction: Prediction) -> None:
    """Fill the tables of a prediction from what happened until then; readers see the old rows or the new ones."""
    for table, select in prediction.tables.items():
        with database.read() as cursor:  # may take seconds: the writer is not held meanwhile
            found = cursor.sql(select, params={"at": at}).to_arrow_table()
        with database.write() as cursor:
            cursor.execute(f"DELETE FROM {table}")
            append(cursor, table, found)


def learn_all(database: Database, at: datetime) -> None:
    """Fill all tables of predictions."""
    for prediction in PREDICTIONS:
        learn(database, at, prediction)
