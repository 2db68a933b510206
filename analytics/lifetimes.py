"""How much longer an instance will live: Kaplan-Meier survival by age, running instances counted as censored.

Survival of (template, owner) is pulled towards that of its template, this towards its flavour's, this towards that of
all, each with 20 pseudo-observations that live and die as the wider group does. Where nothing has been seen, an
instance is expected to live as long again as it has lived. The median is told, not the mean: docs/facts/placement.md.
"""

from __future__ import annotations

from datetime import timedelta

from analytics.prediction import Prediction

PSEUDO = 20
_MIN, _HOUR, _DAY = 60, 3600, 86400
EDGES_S = (
    0, _MIN, 2 * _MIN, 5 * _MIN, 10 * _MIN, 15 * _MIN, 20 * _MIN, 30 * _MIN, 45 * _MIN,
    *(_HOUR * h for h in (1, 1.5, 2, 3, 4, 6, 8, 12, 18)),
    *(_DAY * d for d in (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)),
)  # fmt: skip
TOLD_S = 128 * _DAY  # ages up to here are told

_ABOUT = """coalesce(arg_max(template, occurred_at), '') AS template,
           coalesce(arg_max(owner, occurred_at), '') AS owner,
           arg_max(cpu, occurred_at)::VARCHAR || 'x' || arg_max(memory_mib, occurred_at)::VARCHAR AS flavour"""
_SUBJECTS = f"""
    SELECT instance_id, {_ABOUT},
           min(occurred_at) FILTER (to_state = 'running') AS started_at,
           max(occurred_at) FILTER (to_state = 'deleted') AS ended_at
    FROM events WHERE kind = 'lifecycle' AND instance_id IS NOT NULL {{until}} GROUP BY instance_id
    HAVING min(occurred_at) FILTER (to_state = 'running') IS NOT NULL"""
_LEVELS = (  # from the widest: key of an instance's group, key of the next wider group
    ("row(0, '', '', '')", "NULL"),
    ("row(1, '', '', flavour)", "row(0, '', '', '')"),
    ("row(2, template, '', '')", "row(1, '', '', mode(flavour))"),
    ("row(3, template, owner, '')", "row(2, any_value(template), '', '')"),
)


def _each(select: str) -> str:
    """Return the union of a SELECT for all levels; {level}, {own} and {wider} stand for what differs."""
    parts = (select.format(level=level, own=own, wider=wider) for level, (own, wider) in enumerate(_LEVELS))
    return "\n    UNION ALL ".join(parts)


def _curve(level: int) -> str:
    """Return the CTE with the hazards and survival of one level's groups by bin, pulled towards the wider groups'."""
    if level == 0:  # one pseudo-observation that lives as long again as it has lived
        pull, hazard, wider = "1.0", "CASE WHEN lo > 0 THEN 1 - lo / hi ELSE 0 END", ""
    else:
        pull, hazard = f"({PSEUDO} * w.survival)", "w.hazard"
        wider = f"JOIN curve_{level - 1} w ON w.key = counted.wider AND w.bin = counted.bin"
    return f"""curve_{level} AS (
    SELECT *, exp(coalesce(sum(ln(1 - hazard)) OVER (
        PARTITION BY key ORDER BY bin ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)) AS survival
    FROM (
        SELECT counted.key, counted.bin, counted.lo, counted.hi,
               least((died + {pull} * {hazard}) / (greatest(at_risk - censored / 2, died) + {pull}), 1 - 1e-9) AS hazard
        FROM counted {wider} WHERE level = {level}
    )
)"""


_LEARN = f"""
WITH bins AS (
    SELECT unnest(range(1, {len(EDGES_S)})) AS bin, unnest({[float(s) for s in EDGES_S[:-1]]}) AS lo,
           unnest({[float(s) for s in EDGES_S[1:]]}) AS hi
), subjects AS ({_SUBJECTS.format(until="AND occurred_at <= $at")}
), aged AS (
    SELECT *, greatest(epoch_us(coalesce(ended_at, $at)) - epoch_us(started_at), 0) / 1e6 AS life_s,
           ended_at IS NOT NULL AS ended FROM subjects
), lives AS (SELECT aged.*, bin FROM aged ASOF JOIN bins ON life_s >= bins.lo
), groups AS (
    {_each("SELECT {level} AS level, {own} AS key, {wider} AS wider, count(*) AS instances, "
           "count(*) FILTER (ended) AS ended FROM lives GROUP BY ALL")}
), ends AS (
    {_each("SELECT {own} AS key, bin, count(*) FILTER (ended) AS died, count(*) FILTER (NOT ended) AS censored "
           "FROM lives GROUP BY ALL")}
), counted AS (
    SELECT level, g.key, wider, b.bin, lo, hi, coalesce(died, 0) AS died, coalesce(censored, 0) AS censored,
           coalesce(sum(died + censored) OVER (
               PARTITION BY g.key ORDER BY b.bin ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING), 0) AS at_risk
    FROM groups g CROSS JOIN bins b LEFT JOIN ends e ON e.key = g.key AND e.bin = b.bin
), {", ".join(_curve(level) for level in range(len(_LEVELS)))},
curves AS (  -- gone: cumulative hazard at both ends of a bin
    SELECT key, lo, hi, -ln(survival) AS gone, -ln(survival) - ln(1 - hazard) AS gone_after
    FROM ({" UNION ALL ".join(f"SELECT * FROM curve_{level}" for level in range(len(_LEVELS)))})
), learned AS (  -- the median is where as much hazard again has gone by as halves those who are left
    SELECT nullif(c.key[2], '') AS template, nullif(c.key[3], '') AS owner, nullif(c.key[4], '') AS flavour,
           g.instances, g.ended, c.lo AS age_s,
           coalesce(h.lo + (c.gone + ln(2) - h.gone) / (h.gone_after - h.gone) * (h.hi - h.lo), {EDGES_S[-1]}) - c.lo
           AS residual_s
    FROM curves c JOIN groups g USING (key)
    ASOF LEFT JOIN curves h ON h.key = c.key AND c.gone + ln(2) <= h.gone_after
    WHERE c.lo <= {TOLD_S} AND (level = 0 OR c.key[2] <> '' OR c.key[4] <> '') AND (level < 3 OR c.key[3] <> '')
)
"""

# Judged by what is left of life, cut off at 24 hours on both sides: so nobody has to be waited for.
_CUT_S = _DAY
_TOLD = """
SELECT a.*, coalesce(o.residual_s, t.residual_s, f.residual_s, g.residual_s) AS told_s
FROM asked a
LEFT JOIN learned o ON o.template = a.template AND o.owner = a.owner AND o.age_s = a.age_s
LEFT JOIN learned t ON t.template = a.template AND t.owner IS NULL AND t.age_s = a.age_s
LEFT JOIN learned f ON f.flavour = a.flavour AND f.age_s = a.age_s
JOIN learned g ON g.template IS NULL AND g.flavour IS NULL AND g.age_s = a.age_s"""


def _off(told: str) -> str:
    return f"abs(ln(least(greatest({told}, 60), {_CUT_S}) / left_s))"


def _left(since: str) -> str:
    ended = f"epoch_us(ended_at) - epoch_us({since})"
    return f"least(greatest(coalesce(({ended}) / 1e6, {_CUT_S}), 60), {_CUT_S}) AS left_s"


_AT_START = f"""{_LEARN}, asked AS (
    SELECT template, owner, flavour, 0 AS age_s, {_left("started_at")} FROM ({_SUBJECTS.format(until="")})
    WHERE started_at > $at AND started_at <= $until
), told AS ({_TOLD}), naive AS (
    SELECT residual_s AS naive_s FROM learned WHERE template IS NULL AND flavour IS NULL AND age_s = 0
)
SELECT count(*) AS cases, avg({_off("told_s")}) AS error, avg({_off("naive_s")}) AS baseline_error,
       avg(((told_s > 7200) = (left_s > 7200))::INT) AS right_about_2h_ratio,
       greatest(avg((left_s > 7200)::INT), avg((left_s <= 7200)::INT)) AS frequent_2h_ratio
FROM told, naive
"""
_AT_AGE = f"""{_LEARN}, running AS (
    SELECT template, owner, flavour, (epoch_us($at) - epoch_us(started_at)) / 1e6 AS exact_s, {_left("$at")}
    FROM ({_SUBJECTS.format(until="")})
    WHERE started_at <= $at AND coalesce(ended_at > $at, true) AND $until > $at
), asked AS (
    SELECT running.*, lo AS age_s FROM running ASOF JOIN bins ON exact_s >= lo AND lo <= {TOLD_S}
), told AS ({_TOLD})
SELECT count(*) AS cases, avg({_off("told_s")}) AS error, avg({_off("exact_s")}) AS baseline_error FROM told
"""


# When the last one on a host is expected to end, in seconds since 1970: what is told at its age, else what is left of
# what was told at its start, and when that has passed, as long again as it has lived.
_OFF_HOST = ("pending", "on-hold", "stopped", "undeployed", "failed", "deleted")
EXITS = f"""
WITH learned AS (FROM learned_lifetimes WHERE $groups OR (template IS NULL AND flavour IS NULL)), running AS (
    SELECT {_ABOUT}, arg_max(host, occurred_at) AS host,
           coalesce((epoch_us(now()) - epoch_us(min(occurred_at) FILTER (to_state = 'running'))) / 1e6, 0) AS exact_s
    FROM events WHERE kind = 'lifecycle' AND instance_id IS NOT NULL
    GROUP BY instance_id HAVING arg_max(to_state, occurred_at) NOT IN {_OFF_HOST}
), asked AS (SELECT *, CASE WHEN $at_age THEN exact_s ELSE 0 END AS wanted_s FROM running
), binned AS (
    SELECT asked.*, ages.age_s FROM asked ASOF JOIN (SELECT DISTINCT age_s FROM learned) ages
    ON asked.wanted_s >= ages.age_s
)
SELECT host, max(CASE WHEN $at_age THEN told_s WHEN told_s > exact_s THEN told_s - exact_s ELSE exact_s END)
       + epoch(now()) AS exit_at
FROM ({_TOLD.replace("FROM asked a", "FROM binned a")}) WHERE host <> '' GROUP BY host
"""


def _prediction(name: str, tables: dict[str, str], judge: str, baseline: str) -> Prediction:
    return Prediction(
        name=name, tables=tables, judge=judge, unit="mean |ln ratio|, up to 24 h", baseline=baseline,
        window=timedelta(hours=12), splits=4, follow_up=timedelta(seconds=_CUT_S),
    )  # fmt: skip


AT_START = _prediction(
    "lifetime", {"learned_lifetimes": f"{_LEARN} SELECT * FROM learned"}, _AT_START, "the median of all"
)
AT_AGE = _prediction("residual life", {}, _AT_AGE, "as long again as it has lived")
