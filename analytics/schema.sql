-- The history. One process owns the file; docs/analytics.md describes the views, a test holds the two together.
-- Times are TIMESTAMPTZ in UTC and end in _at, since AT is a reserved word of DuckDB 2.0.

CREATE TABLE IF NOT EXISTS events (      -- one row per outbox row other than a step
    outbox_id BIGINT NOT NULL, occurred_at TIMESTAMPTZ NOT NULL, kind VARCHAR NOT NULL, subject VARCHAR NOT NULL,
    instance_id VARCHAR, instance VARCHAR, owner VARCHAR, host VARCHAR, image VARCHAR,
    from_state VARCHAR, to_state VARCHAR, operation_id VARCHAR, verb VARCHAR,
    cpu DOUBLE, memory_mib BIGINT, waited_s DOUBLE, duration_s DOUBLE, reason VARCHAR, error VARCHAR, payload JSON
);
ALTER TABLE events ADD COLUMN IF NOT EXISTS template VARCHAR; -- the image where there is none

CREATE TABLE IF NOT EXISTS steps (       -- one row per attempt of a step that ended, well or not
    outbox_id BIGINT NOT NULL, occurred_at TIMESTAMPTZ NOT NULL, operation_id VARCHAR, verb VARCHAR, subject VARCHAR NOT NULL,
    instance_id VARCHAR, instance VARCHAR, host VARCHAR, driver VARCHAR, image VARCHAR,
    step VARCHAR, sequence INTEGER, attempt INTEGER, duration_s DOUBLE, outcome VARCHAR, changed BOOLEAN,
    payload JSON                         -- outcome: done, compensated, or the code of the error
);

CREATE TABLE IF NOT EXISTS usage (       -- raw samples; instance_id NULL is the host itself; cpu_used in cores
    sampled_at TIMESTAMPTZ NOT NULL, host VARCHAR NOT NULL, instance_id VARCHAR,
    cpus DOUBLE, cpu_used DOUBLE, memory_mib BIGINT, memory_used_mib BIGINT, disk_total_mib BIGINT, disk_free_mib BIGINT
);

CREATE TABLE IF NOT EXISTS usage_rollup ( -- raw samples older than the retention, by hour
    hour_at TIMESTAMPTZ NOT NULL, host VARCHAR NOT NULL, instance_id VARCHAR, samples BIGINT NOT NULL,
    cpus DOUBLE, cpu_used_avg DOUBLE, cpu_used_max DOUBLE,
    memory_mib BIGINT, memory_used_mib_avg DOUBLE, memory_used_mib_max BIGINT,
    disk_total_mib BIGINT, disk_free_mib_min BIGINT
);

CREATE TABLE IF NOT EXISTS allocation (   -- noun: host, cluster, datastore, network; resource: cpu, memory_mib, disk_mib, addresses
    sampled_at TIMESTAMPTZ NOT NULL, noun VARCHAR NOT NULL, name VARCHAR NOT NULL, host VARCHAR, cluster VARCHAR,
    resource VARCHAR NOT NULL, total DOUBLE, used DOUBLE
);

COMMENT ON TABLE allocation IS 'what can be given away (overcommit included) and what is: per host, cluster, datastore on a host, network';
COMMENT ON TABLE events IS 'every change that was told: kind is lifecycle, operation, host, image, …';
COMMENT ON TABLE steps IS 'every attempt of a step that ended; outcome is done, compensated, or the code of the error';
COMMENT ON TABLE usage IS 'raw samples of the last days; instance_id is NULL for the host itself, cpu_used in cores';
COMMENT ON TABLE usage_rollup IS 'samples older than that, by hour';

CREATE OR REPLACE VIEW capacity_now AS
SELECT host, max(sampled_at) AS sampled_at,
       arg_max(cpus, sampled_at) AS cpus, arg_max(cpu_used, sampled_at) AS cpu_used,
       round(arg_max(cpu_used / nullif(cpus, 0), sampled_at), 4) AS cpu_used_ratio,
       arg_max(memory_mib, sampled_at) AS memory_mib, arg_max(memory_used_mib, sampled_at) AS memory_used_mib,
       arg_max(disk_total_mib, sampled_at) AS disk_total_mib, arg_max(disk_free_mib, sampled_at) AS disk_free_mib
FROM usage WHERE instance_id IS NULL AND sampled_at > now() - INTERVAL 1 DAY GROUP BY host;
COMMENT ON VIEW capacity_now IS 'newest measured capacity and use of each host that sent a sample in the last day';

CREATE OR REPLACE VIEW instance_usage_now AS
SELECT instance_id, arg_max(host, sampled_at) AS host, max(sampled_at) AS sampled_at,
       arg_max(cpus, sampled_at) AS cpus, arg_max(cpu_used, sampled_at) AS cpu_used,
       arg_max(memory_mib, sampled_at) AS memory_mib, arg_max(memory_used_mib, sampled_at) AS memory_used_mib
FROM usage WHERE instance_id IS NOT NULL AND sampled_at > now() - INTERVAL 1 HOUR GROUP BY instance_id;
COMMENT ON VIEW instance_usage_now IS 'newest sample of each instance seen in the last hour';

CREATE OR REPLACE VIEW usage_hourly AS
WITH hours AS (
    SELECT date_trunc('hour', sampled_at) AS hour_at, host, instance_id, count(*) AS samples,
           max(cpus) AS cpus, avg(cpu_used) AS cpu_used_avg, max(cpu_used) AS cpu_used_max,
           max(memory_mib) AS memory_mib, avg(memory_used_mib) AS memory_used_mib_avg,
           max(memory_used_mib) AS memory_used_mib_max,
           max(disk_total_mib) AS disk_total_mib, min(disk_free_mib) AS disk_free_mib_min
    FROM usage GROUP BY ALL
    UNION ALL BY NAME
    SELECT * FROM usage_rollup
)
SELECT hour_at, host, instance_id, sum(samples)::BIGINT AS samples, max(cpus) AS cpus,
       sum(cpu_used_avg * samples) / sum(samples) FILTER (cpu_used_avg IS NOT NULL) AS cpu_used_avg,
       max(cpu_used_max) AS cpu_used_max, max(memory_mib) AS memory_mib,
       sum(memory_used_mib_avg * samples) / sum(samples) FILTER (memory_used_mib_avg IS NOT NULL) AS memory_used_mib_avg,
       max(memory_used_mib_max) AS memory_used_mib_max,
       max(disk_total_mib) AS disk_total_mib, min(disk_free_mib_min) AS disk_free_mib_min
FROM hours GROUP BY hour_at, host, instance_id;
COMMENT ON VIEW usage_hourly IS 'use by hour, host and instance (NULL: the host itself), raw and rolled-up samples together';

CREATE OR REPLACE VIEW step_durations AS
SELECT verb, step, driver, count(*) AS runs, count(*) FILTER (outcome NOT IN ('done', 'compensated')) AS failures,
       max(attempt) AS attempts_max, round(avg(duration_s), 3) AS mean_s,
       round(quantile_cont(duration_s, 0.5), 3) AS p50_s, round(quantile_cont(duration_s, 0.95), 3) AS p95_s,
       round(max(duration_s), 3) AS max_s
FROM steps GROUP BY ALL;
COMMENT ON VIEW step_durations IS 'how long each step takes, by verb and driver, and how often it failed';

CREATE OR REPLACE VIEW operation_durations AS
SELECT verb, to_state AS state, count(*) AS operations,
       round(quantile_cont(waited_s, 0.5), 3) AS waited_p50_s, round(avg(duration_s), 3) AS mean_s,
       round(quantile_cont(duration_s, 0.5), 3) AS p50_s, round(quantile_cont(duration_s, 0.95), 3) AS p95_s,
       round(max(duration_s), 3) AS max_s
FROM events WHERE kind = 'operation' GROUP BY ALL;
COMMENT ON VIEW operation_durations IS 'how operations ended, how long they waited for a worker, and how long they took from request to end';

CREATE OR REPLACE VIEW failures AS
SELECT occurred_at, verb, step, instance, host, driver, attempt, duration_s, outcome, operation_id
FROM steps WHERE outcome NOT IN ('done', 'compensated');
COMMENT ON VIEW failures IS 'every step that did not succeed; outcome is the code of its error';

CREATE OR REPLACE VIEW instance_history AS
SELECT instance_id, occurred_at, outbox_id, kind, instance, owner, host, verb, from_state, to_state,
       NULL AS step, NULL AS attempt, duration_s, NULL AS outcome, reason, error, operation_id
FROM events WHERE instance_id IS NOT NULL
UNION ALL BY NAME
SELECT instance_id, occurred_at, outbox_id, 'step' AS kind, instance, host, verb,
       step, attempt, duration_s, outcome, operation_id
FROM steps WHERE instance_id IS NOT NULL;
COMMENT ON VIEW instance_history IS 'all that happened to each instance: state changes, operations, steps';

CREATE OR REPLACE VIEW instances_seen AS
SELECT instance_id, arg_max(instance, occurred_at) AS instance, arg_max(owner, occurred_at) AS owner,
       arg_max(image, occurred_at) AS image, arg_max(host, occurred_at) FILTER (host <> '') AS host,
       arg_max(to_state, outbox_id) AS state, min(occurred_at) AS first_at,
       min(occurred_at) FILTER (to_state = 'running') AS running_at,
       max(occurred_at) FILTER (to_state = 'deleted') AS deleted_at
FROM events WHERE kind = 'lifecycle' AND instance_id IS NOT NULL GROUP BY instance_id;
COMMENT ON VIEW instances_seen IS 'every instance there ever was: owner, image, last host and state, when it first ran and ended';
