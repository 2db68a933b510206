"""How many cores to hold for what runs: p95 of use instead of allocation (docs/facts/placement.md says why this rule).

demand = max(sum of p95, mean + 5 sigma of the summed use), from 5-minute means of the last 24 hours. An instance with
less than 12 hours of history counts with its whole allocation. A host never needs more than is allocated on it.
"""

from __future__ import annotations

from datetime import timedelta

from analytics.prediction import Prediction

BUCKET_S = 300
ENOUGH_BUCKETS = 12 * 3600 // BUCKET_S
QUANTILE = 0.999  # of the pinball loss: a core too few hurts as much as 999 too many, for the same time

# TIMESTAMPTZ goes through calendars of time zones in time_bucket: plain microseconds take half the time.
_BUCKET = f"epoch_us(sampled_at) // {BUCKET_S}000000"
_LEARN = f"""
WITH seen AS (
    SELECT instance_id, arg_max(host, sampled_at) AS host, arg_max(cpus, sampled_at) AS cpus
    FROM usage WHERE instance_id IS NOT NULL AND sampled_at > $at - INTERVAL 24 HOUR AND sampled_at <= $at
    GROUP BY instance_id HAVING max(sampled_at) > $at - INTERVAL 15 MINUTE
), buckets AS (
    SELECT instance_id, {_BUCKET} AS bucket, avg(cpu_used) AS cpu_used, avg(memory_used_mib) AS memory_used_mib
    FROM usage WHERE instance_id IS NOT NULL AND sampled_at > $at - INTERVAL 24 HOUR AND sampled_at <= $at
    GROUP BY ALL
), used AS (
    SELECT instance_id, count(cpu_used) AS buckets, quantile_cont(cpu_used, 0.95) AS p95, avg(cpu_used) AS mean,
           quantile_cont(memory_used_mib, 0.95) AS memory_used_mib_p95
    FROM buckets GROUP BY instance_id
), instance_use AS (
    SELECT instance_id, host, cpus, p95 AS cpu_used_p95, mean AS cpu_used_avg, memory_used_mib_p95,
           coalesce(buckets, 0) * {BUCKET_S} / 3600 AS hours, coalesce(buckets, 0) >= {ENOUGH_BUCKETS} AS proven,
           CASE WHEN coalesce(buckets, 0) >= {ENOUGH_BUCKETS} THEN p95 ELSE cpus END AS counted_cpus
    FROM seen LEFT JOIN used USING (instance_id)
), swings AS (  -- of the proven ones together, around the mean of each: one that is younger does not pull it down
    SELECT host, stddev_pop(swing) AS sigma FROM (
        SELECT host, bucket, sum(cpu_used - cpu_used_avg) AS swing
        FROM buckets JOIN instance_use USING (instance_id) WHERE proven GROUP BY ALL
    ) GROUP BY host
), sums AS (
    SELECT host, count(*) AS instances, count(*) FILTER (NOT proven) AS unproven, sum(cpus) AS allocated_cpus,
           coalesce(sum(cpu_used_p95) FILTER (proven), 0) AS p95_sum_cpus,
           coalesce(sum(cpu_used_avg) FILTER (proven), 0) AS mean_cpus,
           coalesce(sum(cpus) FILTER (NOT proven), 0) AS unproven_cpus
    FROM instance_use GROUP BY host
), host_use AS (
    SELECT host, instances, unproven, allocated_cpus, p95_sum_cpus,
           mean_cpus + 5 * coalesce(sigma, 0) AS mean_5_sigma_cpus,
           least(greatest(p95_sum_cpus, mean_5_sigma_cpus) + unproven_cpus, allocated_cpus) AS demand_cpus
    FROM sums LEFT JOIN swings USING (host)
)
"""


def _pinball(held: str) -> str:
    return f"greatest({QUANTILE} * (cpu_used - {held}), {1 - QUANTILE:.4f} * ({held} - cpu_used))"


_JUDGE = f"""{_LEARN}, later AS (
    SELECT host, {_BUCKET} AS bucket, instance_id, avg(cpu_used) AS cpu_used
    FROM usage SEMI JOIN instance_use USING (instance_id, host)
    WHERE cpu_used IS NOT NULL AND sampled_at > $at AND sampled_at <= $until GROUP BY ALL
), was AS (
    SELECT host, demand_cpus, allocated_cpus, sum(cpu_used) AS cpu_used
    FROM later JOIN host_use USING (host) WHERE unproven < instances
    GROUP BY host, bucket, demand_cpus, allocated_cpus
), rules AS (
    SELECT *, {_pinball("demand_cpus")} AS loss, {_pinball("allocated_cpus")} AS loss_1,
           {_pinball("allocated_cpus / 4")} AS loss_4 FROM was
)
SELECT count(*) AS cases, avg(loss) AS error, least(avg(loss_1), avg(loss_4)) AS baseline_error,
       avg((cpu_used > demand_cpus)::INT) AS over_ratio, avg((cpu_used > allocated_cpus / 4)::INT) AS over_ratio_4x,
       sum(demand_cpus) / sum(allocated_cpus) AS held_ratio
FROM rules
"""

USE = Prediction(
    name="use",
    tables={
        "learned_instance_use": f"{_LEARN} SELECT * FROM instance_use",
        "learned_host_use": f"{_LEARN} SELECT *, $at AS learned_at FROM host_use",
    },
    judge=_JUDGE,
    unit="cores (pinball loss)",
    baseline="the better of allocation and 4 x overcommit",
    window=timedelta(hours=12),
    splits=4,
)
