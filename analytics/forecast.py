"""What will be asked of a cluster, and when it runs out: from what was reserved on its hosts day by day.

Level: the mean of the last 3 daily peaks. Trend: the least-squares slope of 28 days, as far as the line explains them
(times R²), so that noise gives none. Interval: 80 %, of a level that wanders and is seen with noise: of two changes in
a row, noise makes the second undo the first, so their covariance is -noise², and what is left of the variance wanders.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from analytics.database import Database, rows_of
from analytics.prediction import Prediction
from analytics.query import to_json

DAYS, AHEAD_DAYS, TESTED_DAYS = 28, 365, 7
_Z = 1.2816  # four out of five

# Days are counted back from $at, so that none is half over.
_FIT = f"""
WITH days AS (
    SELECT name AS cluster, resource, -((epoch_us($at) - epoch_us(sampled_at)) // 86400000000)::DOUBLE AS day,
           max(used) AS peak, arg_max(total, sampled_at) AS total
    FROM allocation WHERE noun = 'cluster' AND sampled_at > $at - INTERVAL {DAYS} DAY AND sampled_at <= $at GROUP BY ALL
), changes AS (
    SELECT *, peak - lag(peak) OVER (PARTITION BY cluster, resource ORDER BY day) AS change FROM days
), pairs AS (SELECT *, lag(change) OVER (PARTITION BY cluster, resource ORDER BY day) AS before FROM changes
), fit AS (
    SELECT cluster, resource, count(*) AS seen_days, avg(peak) FILTER (day > -3) AS level, arg_max(peak, day) AS last,
           arg_max(total, day) AS total, coalesce(var_pop(change), 0) AS swing,
           greatest(-coalesce(covar_pop(change, before), 0), 0) AS noise,
           CASE WHEN count(*) >= 5 THEN coalesce(regr_slope(peak, day) * regr_r2(peak, day), 0) ELSE 0 END AS trend
    FROM pairs GROUP BY ALL HAVING max(day) = 0
)
"""
_LEARN = f"""{_FIT}, ahead AS (
    SELECT cluster, resource, ahead_days::INTEGER AS ahead_days, total, level + trend * (ahead_days + 1) AS middle,
           {_Z} * sqrt(4 * noise / 3 + greatest(swing - 2 * noise, 0) * ahead_days
                       + 12 * noise * ahead_days ** 2 / seen_days ** 3) AS reach
    FROM fit CROSS JOIN range(1, {AHEAD_DAYS + 1}) AS ahead(ahead_days)
), learned AS (
    SELECT cluster, resource, ahead_days, total, greatest(middle, 0) AS expected, greatest(middle - reach, 0) AS low,
           greatest(middle + reach, 0) AS high FROM ahead
)
"""
_JUDGE = f"""{_LEARN}, later AS (
    SELECT name AS cluster, resource, max(used) AS peak FROM allocation
    WHERE noun = 'cluster' AND sampled_at > $until - INTERVAL 1 DAY AND sampled_at <= $until GROUP BY ALL
)
SELECT count(*) AS cases, avg(abs(expected - peak) / learned.total) AS error,
       avg(abs(last - peak) / learned.total) AS baseline_error, avg((peak BETWEEN low AND high)::INT) AS within_ratio
FROM later JOIN learned USING (cluster, resource) JOIN fit USING (cluster, resource)
WHERE ahead_days = {TESTED_DAYS} AND seen_days >= {TESTED_DAYS} AND learned.total > 0
"""

DEMAND = Prediction(
    name="demand",
    tables={"learned_demand": f"{_LEARN} SELECT * FROM learned"},
    judge=_JUDGE,
    unit=f"share of the cluster, {TESTED_DAYS} days ahead",
    baseline="stays as it is",
    window=timedelta(days=TESTED_DAYS),
    splits=8,
    min_cases=4,
)

_OUTLOOK = """
SELECT o.*, coalesce(beats, false) AS proven FROM outlook o
LEFT JOIN backtests b ON b.prediction = 'demand' ORDER BY cluster, resource
"""


def outlook(database: Database) -> list[dict[str, Any]]:
    """Return the view outlook, a dict per cluster and resource; proven: whether forecasts beat the baseline so far."""
    with database.read() as cursor:
        rows = rows_of(cursor, _OUTLOOK)
    return [{key: to_json(value) for key, value in row.items()} for row in rows]
