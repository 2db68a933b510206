"""Roll raw usage samples up by hour once they are old, so that the file stays small."""

from __future__ import annotations

from datetime import datetime, timedelta

from analytics.database import Database

_ROLL_UP = """
INSERT INTO usage_rollup BY NAME
SELECT date_trunc('hour', sampled_at) AS hour_at, host, instance_id, count(*) AS samples, max(cpus) AS cpus,
       avg(cpu_used) AS cpu_used_avg, max(cpu_used) AS cpu_used_max, max(memory_mib) AS memory_mib,
       avg(memory_used_mib) AS memory_used_mib_avg, max(memory_used_mib) AS memory_used_mib_max,
       max(disk_total_mib) AS disk_total_mib, min(disk_free_mib) AS disk_free_mib_min
FROM usage WHERE sampled_at < ? GROUP BY ALL
"""


def roll_up(database: Database, now: datetime, keep_days: int) -> int:
    """Replace raw samples older than keep_days by one row per hour, host and instance; return how many went.

    A sample that comes late makes a second row for its hour; the view usage_hourly adds them up.
    """
    before = (now - timedelta(days=keep_days)).replace(minute=0, second=0, microsecond=0)
    with database.write() as cursor:
        cursor.execute("SELECT count(*) FROM usage WHERE sampled_at < ?", [before])
        old = int(cursor.fetchall()[0][0])
        if old:
            cursor.execute(_ROLL_UP, [before])
            cursor.execute("DELETE FROM usage WHERE sampled_at < ?", [before])
    return old
