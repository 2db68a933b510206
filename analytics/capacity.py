"""What hosts have and use, as measured: for people (capacity) and for placement (features)."""

from __future__ import annotations

import threading
import time
from typing import Any

from analytics.database import Database, rows_of
from analytics.learned import learned_features, short
from analytics.query import to_json

EVERY_S = 2.0  # how old features may be before they are worked out again
FRESH_MINUTES = 15  # a host that was silent for longer has no measured use
WINDOW_HOURS = 24

_FEATURES = f"""
SELECT host,
       arg_max(cpu_used / nullif(cpus, 0), sampled_at) AS cpu_used_ratio,
       quantile_cont(cpu_used / nullif(cpus, 0), 0.95) AS cpu_used_ratio_p95,
       arg_max(memory_used_mib, sampled_at) AS memory_used_mib,
       quantile_cont(memory_used_mib, 0.95) AS memory_used_mib_p95,
       max(sampled_at) AS sampled_at, count(*) AS samples
FROM usage
WHERE instance_id IS NULL AND sampled_at > now() - INTERVAL {WINDOW_HOURS} HOUR
GROUP BY host HAVING max(sampled_at) > now() - INTERVAL {FRESH_MINUTES} MINUTE ORDER BY host
"""


def capacity(database: Database) -> list[dict[str, Any]]:
    """Return the view capacity_now, one dict per host."""
    with database.read() as cursor:
        rows = rows_of(cursor, "SELECT * FROM capacity_now ORDER BY host")
    return [{key: to_json(value) for key, value in row.items()} for row in rows]


def instance_usage(database: Database) -> list[dict[str, Any]]:
    """Return the view instance_usage_now, one dict per instance."""
    with database.read() as cursor:
        rows = rows_of(cursor, "SELECT * FROM instance_usage_now ORDER BY instance_id")
    return [{key: to_json(value) for key, value in row.items()} for row in rows]


class Features:
    """The versioned table of features. The version grows whenever the values were worked out again."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._worked_out = 0.0
        self._dirty = True
        self._value: dict[str, Any] = {"version": 0, "hosts": {}}
        self._learned = learned_features(database)

    def touch(self) -> None:
        """Note that samples came in."""
        self._dirty = True

    def learned(self) -> None:
        """Note that predictions were learned or judged anew."""
        self._learned = learned_features(self._database)
        self._dirty = True

    def get(self, known: int | None = None) -> dict[str, Any]:
        """Return {"version", "hosts": {name: {cpu_used_ratio, memory_used_mib, …_p95, sampled_at, samples}}, …}.

        The rest, and more of hosts, is what was learned and beats its baseline: see learned_features. Of the version
        that is known already, nothing but the version.
        """
        with self._lock:
            age_s = time.monotonic() - self._worked_out
            if (self._dirty and age_s > EVERY_S) or age_s > 60:
                self._dirty = False
                self._value = self._work_out()
                self._worked_out = time.monotonic()
            return {"version": known} if known == self._value["version"] else self._value

    def _work_out(self) -> dict[str, Any]:
        with self._database.read() as cursor:
            rows = rows_of(cursor, _FEATURES)
        hosts = {str(row.pop("host")): {key: short(to_json(value)) for key, value in row.items()} for row in rows}
        for name, figures in self._learned["hosts"].items():
            hosts[name] = {**hosts.get(name, {}), **figures}
            if "exit_at" in figures:
                hosts[name]["exit_s"] = round(max(0.0, hosts[name].pop("exit_at") - time.time()), 1)
        # Seconds since 1970 keep growing over restarts without being stored, and fit a 32-bit column until 2038.
        return {**self._learned, "version": max(int(time.time()), self._value["version"] + 1), "hosts": hosts}
