"""What was learned, as placement takes it: only what beat its baseline when it was judged last."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from analytics import durations, failures, lifetimes, overcommit
from analytics.database import Database, rows_of
from analytics.prediction import used

Figures = dict[str, Any]
_LIVES = {lifetimes.AT_START.name, lifetimes.AT_AGE.name}
_GROUPS_MAX = 2000  # of lifetimes: those with most that ended; the rest differs little from the wider group

_HOST_USE = """SELECT host AS name, demand_cpus, allocated_cpus AS demand_of_cpus,
       greatest(mean_5_sigma_cpus - p95_sum_cpus, 0) AS swing_cpus FROM learned_host_use"""
_INSTANCE_USE = "SELECT host, instance_id, counted_cpus, cpus FROM learned_instance_use WHERE proven"
_LEARNED_AT = "SELECT epoch(max(learned_at)) AS use_at FROM learned_host_use"
_STEPS = """SELECT verb, step, driver, p50_s, p95_s FROM learned_steps WHERE host IS NULL AND image IS NULL
ORDER BY ALL"""
_BOOTS = """SELECT {by} AS name, p50_s AS boot_p50_s, p95_s AS boot_p95_s FROM learned_steps
WHERE verb = 'deploy' AND step = 'start' AND {by} IS NOT NULL AND {other} IS NULL"""
_FAILURES = "SELECT {by} AS name, failure_ratio FROM learned_failures WHERE {by} IS NOT NULL"
_LIFETIMES = f"""
SELECT template, owner, flavour, list(residual_s ORDER BY age_s) AS left_s FROM learned_lifetimes
WHERE $all OR (template IS NULL AND flavour IS NULL)
GROUP BY ALL ORDER BY max(ended) DESC LIMIT {_GROUPS_MAX}
"""


def learned_features(database: Database) -> Figures:
    """Return {"used", "use_at", "hosts", "images", "steps", "lifetimes"}; what is not used is empty.

    use_at: when use was learned, in seconds since 1970; hosts: {name: demand_cpus of the instances that had
    demand_of_cpus allocated, swing_cpus of it beyond the sum of p95, uses: {id of an instance with 12 h and more of
    history: [p95 of the cores it uses, cores it has]}, failure_ratio, boot_p50_s, boot_p95_s,
    exit_at: when its last instance is expected to end}; images: failures and boots likewise;
    steps: [{verb, step, driver, p50_s, p95_s}]; lifetimes: see `_lifetimes`.
    """
    names = used(database)
    hosts: dict[str, Figures] = defaultdict(dict)
    images: dict[str, Figures] = defaultdict(dict)
    parts = (
        (hosts, overcommit.USE, _HOST_USE),
        (hosts, durations.STEPS, _BOOTS.format(by="host", other="image")),
        (images, durations.STEPS, _BOOTS.format(by="image", other="host")),
        (hosts, failures.OF_HOSTS, _FAILURES.format(by="host")),
        (images, failures.OF_IMAGES, _FAILURES.format(by="image")),
    )
    with database.read() as cursor:
        for into, prediction, sql in parts:
            for row in rows_of(cursor, sql) if prediction.name in names else ():
                into[str(row.pop("name"))].update({key: short(value) for key, value in row.items()})
        known = overcommit.USE.name in names
        for row in rows_of(cursor, _INSTANCE_USE) if known else ():
            uses = hosts[row["host"]].setdefault("uses", {})
            uses[row["instance_id"]] = [short(row["counted_cpus"]), row["cpus"]]
        for row in _exits(cursor, names):
            hosts[row["host"]]["exit_at"] = row["exit_at"]
        use_at = rows_of(cursor, _LEARNED_AT)[0]["use_at"] if known else None
        steps = rows_of(cursor, _STEPS) if durations.STEPS.name in names else []
        return {
            "used": sorted(names), "use_at": use_at, "hosts": dict(hosts), "images": dict(images),
            "steps": [{key: short(value) for key, value in row.items()} for row in steps],
            "lifetimes": _lifetimes(cursor, names),
        }  # fmt: skip


def _exits(cursor: Any, names: set[str]) -> list[Figures]:
    if not names & _LIVES:
        return []
    return rows_of(cursor, lifetimes.EXITS, {
        "at_age": lifetimes.AT_AGE.name in names, "groups": lifetimes.AT_START.name in names,
    })  # fmt: skip


def _lifetimes(cursor: Any, names: set[str]) -> Figures:
    """Return {"ages_s", "all", "flavours", "templates", "owners"}: medians of life left at each age, in seconds.

    flavours: by "<cpu>x<MiB>"; templates: by name; owners: {template: {owner: …}}. The first of owners, templates,
    flavours and all that is there counts. Groups are there if they foretell a life better than the median of all does,
    ages other than 0 if they foretell what is left better than the age itself does.
    """
    if not names & _LIVES:
        return {}
    ages = len([age for age in lifetimes.EDGES_S if age <= lifetimes.TOLD_S]) if lifetimes.AT_AGE.name in names else 1
    found: Figures = {"ages_s": list(lifetimes.EDGES_S[:ages]), "flavours": {}, "templates": {}, "owners": {}}
    for row in rows_of(cursor, _LIFETIMES, {"all": lifetimes.AT_START.name in names}):
        left_s = [round(value) for value in row["left_s"][:ages]]
        if row["owner"]:
            found["owners"].setdefault(row["template"], {})[row["owner"]] = left_s
        elif row["template"]:
            found["templates"][row["template"]] = left_s
        elif row["flavour"]:
            found["flavours"][row["flavour"]] = left_s
        else:
            found["all"] = left_s
    return found


def short(value: Any) -> Any:
    """Return a float with four places, anything else as it is."""
    return round(value, 4) if isinstance(value, float) else value
