"""Steps that take longer than they used to, and since when: "start on h3 takes 3.1 times as long since Tuesday"."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from analytics.database import Database, rows_of
from analytics.query import to_json

DAYS = 14
MIN_BEFORE, MIN_AFTER = 8, 5  # runs on both sides of a change
MIN_RATIO = 1.5
MIN_T = 6.0  # of the change, in its standard errors: the best of all places to cut has to stand out
MIN_SPREAD = 0.05  # of logarithms: very even steps do not make small changes great ones

# Durations as logarithms, each less what is usual for its image: another mix of images is no change. Runs of a step on
# a host are cut in two wherever the means of both sides differ most surely.
_REGRESSIONS = f"""
WITH timed AS (
    SELECT verb, step, host, driver, coalesce(image, '') AS image, occurred_at, outbox_id, duration_s,
           ln(greatest(duration_s, 0.001)) AS y FROM steps
    WHERE outcome = 'done' AND duration_s IS NOT NULL AND host IS NOT NULL
      AND occurred_at > $at - INTERVAL {DAYS} DAY AND occurred_at <= $at
), usual AS (SELECT verb, step, image, median(y) AS usual FROM timed GROUP BY ALL
), runs AS (
    SELECT timed.*, y - usual AS off, row_number() OVER in_order - 1 AS n1, count(*) OVER whole AS n
    FROM timed JOIN usual USING (verb, step, image)
    WINDOW whole AS (PARTITION BY verb, step, host), in_order AS (whole ORDER BY occurred_at, outbox_id)
), sums AS (
    SELECT *, sum(off) OVER before AS s1, sum(off * off) OVER before AS q1, sum(off) OVER whole AS s,
           sum(off * off) OVER whole AS q
    FROM runs WINDOW whole AS (PARTITION BY verb, step, host), before AS (
        PARTITION BY verb, step, host ORDER BY n1 ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
), cuts AS (
    SELECT verb, step, host, driver, occurred_at, (s - s1) / (n - n1) - s1 / n1 AS change,
           greatest((q - s1 * s1 / n1 - (s - s1) ** 2 / (n - n1)) / (n - 2), {MIN_SPREAD**2}) AS variance, n1, n
    FROM sums WHERE n1 >= {MIN_BEFORE} AND n - n1 >= {MIN_AFTER}
), best AS (
    SELECT *, change / sqrt(variance * (1 / n1 + 1 / (n - n1))) AS t FROM cuts
    QUALIFY row_number() OVER (PARTITION BY verb, step, host ORDER BY t DESC) = 1
), found AS (
    SELECT * FROM best WHERE t >= {MIN_T} AND change >= ln({MIN_RATIO})
)
SELECT f.verb, f.step, f.host, f.driver, f.occurred_at AS since_at,
       round(exp(median(off) FILTER (here AND later) - median(off) FILTER (here AND NOT later)), 2) AS ratio,
       round(median(duration_s) FILTER (here AND NOT later), 3) AS before_p50_s,
       round(median(duration_s) FILTER (here AND later), 3) AS after_p50_s,
       any_value(f.n1) AS runs_before, any_value(f.n - f.n1) AS runs_after,
       round(exp(median(off) FILTER (NOT here AND later) - median(off) FILTER (NOT here AND NOT later)), 2)
       AS others_ratio
FROM found f JOIN (
    SELECT runs.*, found.host AS of_host, runs.host = found.host AS here, runs.occurred_at >= found.occurred_at AS later
    FROM runs JOIN found USING (verb, step)
) r ON r.verb = f.verb AND r.step = f.step AND r.of_host = f.host
GROUP BY f.verb, f.step, f.host, f.driver, f.occurred_at ORDER BY ratio DESC
"""


def regressions(database: Database, at: datetime) -> list[dict[str, Any]]:
    """Return the worst first: verb, step, host, driver, since_at, ratio, before_p50_s, after_p50_s, runs_before, …

    others_ratio: what became of the same step on other hosts since then; None without any.
    """
    with database.read() as cursor:
        rows = rows_of(cursor, _REGRESSIONS, {"at": at})
    return [{key: to_json(value) for key, value in row.items()} for row in rows]
