"""How long a step will take: by verb, step and driver, times what its host and its image make of it.

Effects are medians of logarithms, each pulled towards none with some pseudo-observations, so that few runs say little.
A host and an image that have not met yet are foretold from what each did with others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from analytics.database import Database, rows_of
from analytics.prediction import Prediction, used

PSEUDO = 5
DAYS = 30


def _effect(residual: str) -> str:
    return f"median({residual}) * count(*) / (count(*) + {PSEUDO})"


def _turn(number: int, by: str) -> str:
    """Return the CTEs that estimate the effects of hosts or of images from what the others leave over."""
    return f"""effect_{number} AS (
    SELECT verb, step, driver, {by}, count(*) AS runs, {_effect(f"off + {by}_effect")} AS effect
    FROM off_{number - 1} WHERE {by} IS NOT NULL GROUP BY ALL
), off_{number} AS (
    SELECT o.* REPLACE (off + {by}_effect - coalesce(effect, 0) AS off, coalesce(effect, 0) AS {by}_effect)
    FROM off_{number - 1} o LEFT JOIN effect_{number} USING (verb, step, driver, {by})
)"""


def _level(effect: str, spread: str, source: str, columns: str) -> str:
    """Return the SELECT of learned rows of one kind. spread: what is left unexplained at 95 %."""
    middle = f"exp(middle + {effect})"
    return f"""SELECT verb, step, driver, {columns} runs, {middle} AS p50_s, {middle} * exp({spread}) AS p95_s
    FROM {source} JOIN spread USING (verb, step, driver)"""


# Hosts and images in turn: where not every host has run every image, one turn gives one the merit of the other.
_TURNS = ("host", "image") * 4
_HOSTS, _IMAGES, _LAST = f"effect_{len(_TURNS) - 1}", f"effect_{len(_TURNS)}", f"off_{len(_TURNS)}"
_LEARN = f"""
WITH runs AS (
    SELECT verb, step, coalesce(driver, '') AS driver, host, image, ln(greatest(duration_s, 0.001)) AS y FROM steps
    WHERE outcome = 'done' AND duration_s IS NOT NULL AND occurred_at > $at - INTERVAL {DAYS} DAY AND occurred_at <= $at
), any_run AS (
    SELECT verb, step, driver, count(*) AS runs, median(y) AS middle FROM runs GROUP BY ALL
), off_0 AS (
    SELECT runs.*, middle, y - middle AS off, 0::DOUBLE AS host_effect, 0::DOUBLE AS image_effect
    FROM runs JOIN any_run USING (verb, step, driver)
), {", ".join(_turn(number, by) for number, by in enumerate(_TURNS, 1))},
pairs AS (
    SELECT verb, step, driver, host, image, count(*) AS runs,
           any_value(host_effect + image_effect) + {_effect("off")} AS effect
    FROM {_LAST} WHERE host IS NOT NULL AND image IS NOT NULL GROUP BY ALL
), spread AS (
    SELECT verb, step, driver, any_value(middle) AS middle,
           quantile_cont(y - middle, 0.95) AS any_95, quantile_cont(y - middle - host_effect, 0.95) AS host_95,
           quantile_cont(y - middle - image_effect, 0.95) AS image_95,
           quantile_cont(y - middle - coalesce(effect, host_effect), 0.95) AS pair_95
    FROM {_LAST} LEFT JOIN pairs USING (verb, step, driver, host, image) GROUP BY verb, step, driver
), learned AS (
    {_level("0", "any_95", "(SELECT * EXCLUDE (middle) FROM any_run)", "NULL AS host, NULL AS image,")}
    UNION ALL BY NAME {_level("effect", "host_95", _HOSTS, "host,")}
    UNION ALL BY NAME {_level("effect", "image_95", _IMAGES, "image,")}
    UNION ALL BY NAME {_level("effect", "pair_95", "pairs", "host, image,")}
)
"""


def _foretold(wanted: str, learned: str) -> str:
    """Return the SELECT that adds p50_s and p95_s to wanted (verb, step, driver, host, image); NULL where unknown."""
    on = "{0}.verb = w.verb AND {0}.step = w.step AND coalesce({0}.driver, '') = coalesce(w.driver, '')"
    of_host, of_image = "AND {0}.host = w.host", "AND {0}.image = w.image"
    no_host, no_image = "AND {0}.host IS NULL", "AND {0}.image IS NULL"
    joins = "\n".join(
        f"LEFT JOIN {learned} {name} ON {' '.join((on, host, image)).format(name)}"
        for name, host, image in (
            ("one", no_host, no_image), ("h", of_host, no_image), ("i", no_host, of_image), ("b", of_host, of_image),
        )
    )  # fmt: skip
    joins += f""" LEFT JOIN (
        SELECT verb, step, median(p50_s) AS p50_s, max(p95_s) AS p95_s FROM {learned}
        WHERE host IS NULL AND image IS NULL GROUP BY ALL
    ) a ON a.verb = w.verb AND a.step = w.step"""  # the driver is not known yet, or new
    value = "coalesce(b.{0}, h.{0} * i.p50_s / one.p50_s, h.{0}, i.{0}, one.{0}, a.{0})"
    return f"SELECT w.*, {value.format('p50_s')} AS p50_s, {value.format('p95_s')} AS p95_s FROM {wanted} w {joins}"


_JUDGE = f"""{_LEARN}, later AS (
    SELECT verb, step, driver, host, image, greatest(duration_s, 0.001) AS took_s FROM steps
    WHERE outcome = 'done' AND duration_s IS NOT NULL AND occurred_at > $at AND occurred_at <= $until
), naive AS (
    SELECT verb, step, exp(median(y)) AS naive_s FROM runs GROUP BY ALL
), told AS ({_foretold("later", "learned")})
SELECT count(*) AS cases, avg(abs(ln(took_s / p50_s))) AS error, avg(abs(ln(took_s / naive_s))) AS baseline_error,
       avg((took_s <= p95_s)::INT) AS within_p95_ratio
FROM told JOIN naive USING (verb, step) WHERE p50_s IS NOT NULL
"""

STEPS = Prediction(
    name="steps",
    tables={"learned_steps": f"{_LEARN} SELECT * REPLACE (nullif(driver, '') AS driver) FROM learned"},
    judge=_JUDGE,
    unit="mean |ln ratio|",
    baseline="the median of the verb's step",
    window=timedelta(days=1),
    splits=5,
)

_FIELDS = ("verb", "step", "driver", "host", "image")
_JSON = json.dumps([dict.fromkeys(_FIELDS, "VARCHAR")])
_ASKED = f"(SELECT unnest(from_json($asked, '{_JSON}'), recursive := true))"
_ETA = _foretold(_ASKED, "learned_steps")


def eta(database: Database, asked: Sequence[Mapping[str, Any]]) -> list[dict[str, float | None]]:
    """Return {"p50_s", "p95_s"} for each of some steps {verb, step, driver, host, image}, in their order.

    Both are None for a step that never ran. Host and image count only where that foretells better than the median.
    """
    fields = _FIELDS if STEPS.name in used(database) else _FIELDS[:3]
    wanted = [{name: one.get(name) if name in fields else None for name in _FIELDS} for one in asked]
    with database.read() as cursor:
        rows = rows_of(cursor, _ETA, {"asked": json.dumps(wanted)})
    told = {tuple(row[name] for name in _FIELDS): row for row in rows}
    found = [told[tuple(one.values())] for one in wanted]
    return [{"p50_s": row["p50_s"], "p95_s": row["p95_s"]} for row in found]
