"""Roll usage samples up as they grow old: as sampled, by 5 minutes, by hour, by day; so that the file stays small."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from analytics.database import Database

RECORDED = (
    "events", "steps", "usage", "usage_5min", "usage_hour", "usage_day", "allocation", "machine_sensors", "machine_log",
)  # fmt: skip
SENSORS_DAYS = 90  # readings of BMCs are kept for so long
LEVELS = (("usage", "usage_5min", 300), ("usage_5min", "usage_hour", 3600), ("usage_hour", "usage_day", 86_400))

_ROLL_UP = """
INSERT INTO {into} BY NAME
SELECT make_timestamptz((epoch_us(began_at) // {width}) * {width}) AS began_at, host, instance_id,
       sum(samples)::BIGINT AS samples, max(cpus) AS cpus,
       sum(cpu_used_avg * samples) / sum(samples) FILTER (cpu_used_avg IS NOT NULL) AS cpu_used_avg,
       max(cpu_used_max) AS cpu_used_max, max(memory_mib) AS memory_mib,
       sum(memory_used_mib_avg * samples) / sum(samples) FILTER (memory_used_mib_avg IS NOT NULL)
       AS memory_used_mib_avg,
       max(memory_used_mib_max) AS memory_used_mib_max, max(disk_total_mib) AS disk_total_mib,
       min(disk_free_mib_min) AS disk_free_mib_min
FROM {source} WHERE began_at < $before GROUP BY ALL
"""
_AS_ROLLED_UP = {"usage": "usage_sampled"}  # a view: raw samples as if they were rolled up
_AT = {"usage": "sampled_at"}

# What is allocated changes in steps: the last sample of an hour, then of a day, stands for it. What is much older than
# the limit was thinned before.
_THIN = """
DELETE FROM allocation WHERE rowid IN (
    SELECT rowid FROM allocation WHERE sampled_at < $before AND sampled_at >= $before - INTERVAL 30 DAY
    QUALIFY row_number() OVER (PARTITION BY noun, name, host, resource, epoch_us(sampled_at) // {width}
                               ORDER BY sampled_at DESC) > 1)
"""


def roll_up(database: Database, now: datetime, keep_days: Sequence[int]) -> int:
    """Replace samples older than keep_days, one for each level, by one row of the next; return how many went.

    A sample that comes late makes a second row for its time; the views add them up. One transaction per level: a row is
    in one table at any moment.
    """
    gone = 0
    for (source, into, width_s), days in zip(LEVELS, keep_days, strict=True):
        before = (now - timedelta(days=days)).replace(hour=0, minute=0, second=0, microsecond=0)  # whole buckets
        at = _AT.get(source, "began_at")
        with database.write() as cursor:
            cursor.execute(f"SELECT count(*) FROM {source} WHERE {at} < $before", {"before": before})
            old = int(cursor.fetchall()[0][0])
            if old:
                text = _ROLL_UP.format(into=into, source=_AS_ROLLED_UP.get(source, source), width=width_s * 1_000_000)
                cursor.execute(text, {"before": before})
                cursor.execute(f"DELETE FROM {source} WHERE {at} < $before", {"before": before})
        gone += old
    for width_s, days in ((3600, keep_days[0]), (86_400, keep_days[2])):
        with database.write() as cursor:
            cursor.execute(_THIN.format(width=width_s * 1_000_000), {"before": now - timedelta(days=days)})
    with database.write() as cursor:
        cursor.execute("DELETE FROM machine_sensors WHERE sampled_at < $at", {"at": now - timedelta(days=SENSORS_DAYS)})
    return gone
