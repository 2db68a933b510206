"""How likely a step fails on a host, or with an image: what was seen, pulled towards the mean of all."""

from __future__ import annotations

from datetime import timedelta

from analytics.prediction import Prediction

PSEUDO = 20
DAYS = 30
# What says nothing about host and image: the caller's errors, a lack of room, what was called off or undone.
OTHERS = (
    "compensated", "cancelled", "invalid", "no-fit", "no-capacity-now", "denied", "not-found", "conflict",
    "unsupported",
)  # fmt: skip
_TRIES = f"""
    SELECT host, image, (outcome <> 'done')::INT AS failed, occurred_at FROM steps
    WHERE host IS NOT NULL AND outcome NOT IN {OTHERS}"""
_LEARN = f"""
WITH tries AS ({_TRIES} AND occurred_at > $at - INTERVAL {DAYS} DAY AND occurred_at <= $at),
counted AS (
    SELECT host, image, grouping(host) AS any_host, grouping(image) AS any_image, count(*) AS attempts,
           coalesce(sum(failed), 0)::BIGINT AS failures
    FROM tries GROUP BY GROUPING SETS ((host), (image), ())
), mean AS (SELECT (failures + 0.5) / (attempts + 1) AS ratio FROM counted WHERE any_host = 1 AND any_image = 1),
learned AS (
    SELECT host, image, attempts, failures, CASE WHEN any_host = 1 AND any_image = 1 THEN ratio
           ELSE (failures + {PSEUDO} * ratio) / (attempts + {PSEUDO}) END AS failure_ratio
    FROM counted, mean WHERE (any_host = 1 OR host IS NOT NULL) AND (any_image = 1 OR image IS NOT NULL)
)
"""


def _judge(by: str) -> str:
    """Return the SELECT that compares log losses: by host or image, and the same figure for all."""
    loss = "avg(-ln(CASE WHEN failed = 1 THEN {0} ELSE 1 - {0} END))"
    return f"""{_LEARN}, later AS ({_TRIES} AND occurred_at > $at AND occurred_at <= $until)
SELECT count(*) AS cases, {loss.format("failure_ratio")} AS error, {loss.format("ratio")} AS baseline_error,
       avg(failed) AS failed_ratio
FROM later JOIN learned USING ({by}), mean WHERE {by} IS NOT NULL
"""


def _prediction(by: str, tables: dict[str, str]) -> Prediction:
    return Prediction(
        name=f"failures of {by}s", tables=tables, judge=_judge(by), unit="log loss",
        baseline="the mean of all", window=timedelta(days=1), splits=5, min_cases=100,
    )  # fmt: skip


OF_HOSTS = _prediction("host", {"learned_failures": f"{_LEARN} SELECT * FROM learned"})
OF_IMAGES = _prediction("image", {})
