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

-- Usage samples as they grow old (retention.py); usage_rollup was the name of usage_hour.
ALTER TABLE IF EXISTS usage_rollup RENAME COLUMN hour_at TO began_at;
ALTER TABLE IF EXISTS usage_rollup RENAME TO usage_hour;
CREATE TABLE IF NOT EXISTS usage_5min (
    began_at TIMESTAMPTZ NOT NULL, host VARCHAR NOT NULL, instance_id VARCHAR, samples BIGINT NOT NULL,
    cpus DOUBLE, cpu_used_avg DOUBLE, cpu_used_max DOUBLE,
    memory_mib BIGINT, memory_used_mib_avg DOUBLE, memory_used_mib_max BIGINT,
    disk_total_mib BIGINT, disk_free_mib_min BIGINT
);
CREATE TABLE IF NOT EXISTS usage_hour (
    began_at TIMESTAMPTZ NOT NULL, host VARCHAR NOT NULL, instance_id VARCHAR, samples BIGINT NOT NULL,
    cpus DOUBLE, cpu_used_avg DOUBLE, cpu_used_max DOUBLE,
    memory_mib BIGINT, memory_used_mib_avg DOUBLE, memory_used_mib_max BIGINT,
    disk_total_mib BIGINT, disk_free_mib_min BIGINT
);
CREATE TABLE IF NOT EXISTS usage_day (
    began_at TIMESTAMPTZ NOT NULL, host VARCHAR NOT NULL, instance_id VARCHAR, samples BIGINT NOT NULL,
    cpus DOUBLE, cpu_used_avg DOUBLE, cpu_used_max DOUBLE,
    memory_mib BIGINT, memory_used_mib_avg DOUBLE, memory_used_mib_max BIGINT,
    disk_total_mib BIGINT, disk_free_mib_min BIGINT
);

CREATE TABLE IF NOT EXISTS allocation (   -- noun: host, cluster, datastore, network; resource: cpu, memory_mib, disk_mib, addresses
    sampled_at TIMESTAMPTZ NOT NULL, noun VARCHAR NOT NULL, name VARCHAR NOT NULL, host VARCHAR, cluster VARCHAR,
    resource VARCHAR NOT NULL, total DOUBLE, used DOUBLE
);

CREATE TABLE IF NOT EXISTS machine_sensors (  -- one row per sensor and look at a BMC; "BMC answers" is 1 or 0
    outbox_id BIGINT NOT NULL, sampled_at TIMESTAMPTZ NOT NULL, machine_id VARCHAR NOT NULL, machine VARCHAR,
    sensor VARCHAR NOT NULL, value DOUBLE, unit VARCHAR, health VARCHAR
);
CREATE TABLE IF NOT EXISTS machine_log (      -- entries of event logs, as each was first seen by a worker
    outbox_id BIGINT NOT NULL, sampled_at TIMESTAMPTZ NOT NULL, machine_id VARCHAR NOT NULL, machine VARCHAR,
    entry VARCHAR, logged_at TIMESTAMPTZ, severity VARCHAR, message VARCHAR
);

COMMENT ON TABLE machine_sensors IS 'what BMCs told at each look, for 90 days; the sensor BMC answers is 1 or 0';
COMMENT ON TABLE machine_log IS 'entries of the event logs of BMCs; one may stand there again after a restart of the worker';
COMMENT ON TABLE allocation IS 'what can be given away (overcommit included) and what is: per host, cluster, datastore on a host, network';
COMMENT ON TABLE events IS 'every change that was told: kind is lifecycle, operation, host, image, …';
COMMENT ON TABLE steps IS 'every attempt of a step that ended; outcome is done, compensated, or the code of the error';
COMMENT ON TABLE usage IS 'raw samples of the last days; instance_id is NULL for the host itself, cpu_used in cores';
COMMENT ON TABLE usage_5min IS 'samples older than that, by 5 minutes';
COMMENT ON TABLE usage_hour IS 'samples older than that, by hour';
COMMENT ON TABLE usage_day IS 'samples older than that, by day';

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

CREATE OR REPLACE VIEW usage_sampled AS
SELECT sampled_at AS began_at, host, instance_id, 1 AS samples, cpus, cpu_used AS cpu_used_avg, cpu_used AS cpu_used_max,
       memory_mib, memory_used_mib AS memory_used_mib_avg, memory_used_mib AS memory_used_mib_max,
       disk_total_mib, disk_free_mib AS disk_free_mib_min
FROM usage;
COMMENT ON VIEW usage_sampled IS 'raw samples with the columns of those that are rolled up';

CREATE OR REPLACE VIEW usage_hourly AS
SELECT date_trunc('hour', began_at) AS hour_at, host, instance_id, sum(samples)::BIGINT AS samples, max(cpus) AS cpus,
       sum(cpu_used_avg * samples) / sum(samples) FILTER (cpu_used_avg IS NOT NULL) AS cpu_used_avg,
       max(cpu_used_max) AS cpu_used_max, max(memory_mib) AS memory_mib,
       sum(memory_used_mib_avg * samples) / sum(samples) FILTER (memory_used_mib_avg IS NOT NULL) AS memory_used_mib_avg,
       max(memory_used_mib_max) AS memory_used_mib_max,
       max(disk_total_mib) AS disk_total_mib, min(disk_free_mib_min) AS disk_free_mib_min
FROM (FROM usage_sampled UNION ALL BY NAME FROM usage_5min UNION ALL BY NAME FROM usage_hour) GROUP BY hour_at, host, instance_id;
COMMENT ON VIEW usage_hourly IS 'use by hour, host and instance (NULL: the host itself), for as long as hours are kept';

CREATE OR REPLACE VIEW usage_daily AS
SELECT date_trunc('day', began_at) AS day_at, host, instance_id, sum(samples)::BIGINT AS samples, max(cpus) AS cpus,
       sum(cpu_used_avg * samples) / sum(samples) FILTER (cpu_used_avg IS NOT NULL) AS cpu_used_avg,
       max(cpu_used_max) AS cpu_used_max, max(memory_mib) AS memory_mib,
       sum(memory_used_mib_avg * samples) / sum(samples) FILTER (memory_used_mib_avg IS NOT NULL) AS memory_used_mib_avg,
       max(memory_used_mib_max) AS memory_used_mib_max,
       max(disk_total_mib) AS disk_total_mib, min(disk_free_mib_min) AS disk_free_mib_min
FROM (SELECT hour_at AS began_at, * EXCLUDE (hour_at) FROM usage_hourly UNION ALL BY NAME FROM usage_day) GROUP BY day_at, host, instance_id;
COMMENT ON VIEW usage_daily IS 'use by day, host and instance (NULL: the host itself), for ever';

CREATE OR REPLACE VIEW host_use_week AS
SELECT host, count(*) AS samples, round(avg(cpu_used / nullif(cpus, 0)), 4) AS cpu_used_ratio_avg,
       round(quantile_disc((cpu_used / nullif(cpus, 0))::FLOAT, 0.95)::DOUBLE, 4) AS cpu_used_ratio_p95,
       max(memory_used_mib) AS memory_used_mib_max
FROM usage WHERE instance_id IS NULL AND sampled_at > now() - INTERVAL 7 DAY GROUP BY host;
COMMENT ON VIEW host_use_week IS 'how much of its cores each host used in the last 7 days: mean and 95th percentile';

CREATE OR REPLACE VIEW datastore_use AS
SELECT name AS datastore, host, cluster, max(sampled_at) AS sampled_at, arg_max(total, sampled_at) AS total_mib,
       arg_max(used, sampled_at) AS used_mib, arg_max(used, sampled_at) - arg_min(used, sampled_at) AS grown_mib
FROM allocation WHERE noun = 'datastore' AND sampled_at > now() - INTERVAL 7 DAY GROUP BY name, host, cluster;
COMMENT ON VIEW datastore_use IS 'how full each datastore is on each host, and how much fuller it became in the last 7 days';

CREATE OR REPLACE VIEW network_use AS
SELECT name AS network, cluster, max(sampled_at) AS sampled_at, arg_max(total, sampled_at) AS addresses,
       arg_max(used, sampled_at) AS leased, max(used) AS leased_max
FROM allocation WHERE noun = 'network' AND sampled_at > now() - INTERVAL 7 DAY GROUP BY name, cluster;
COMMENT ON VIEW network_use IS 'addresses of each network and how many are leased, now and at most in the last 7 days';

CREATE OR REPLACE VIEW cluster_use AS
SELECT name AS cluster, resource, max(sampled_at) AS sampled_at, arg_max(total, sampled_at) AS total,
       arg_max(used, sampled_at) AS used, max(used) AS used_max
FROM allocation WHERE noun = 'cluster' AND sampled_at > now() - INTERVAL 7 DAY GROUP BY name, resource;
COMMENT ON VIEW cluster_use IS 'what each cluster can give away (overcommit included) and what is given, now and at most in the last 7 days';

CREATE OR REPLACE VIEW machine_health AS
SELECT machine_id, arg_max(machine, sampled_at) AS machine, sensor, arg_max(unit, sampled_at) AS unit,
       max(sampled_at) AS sampled_at, arg_max(value, sampled_at) AS value, arg_max(health, sampled_at) AS health,
       min(value) AS min_week, round(avg(value), 3) AS avg_week, max(value) AS max_week, count(*) AS samples
FROM machine_sensors WHERE sampled_at > now() - INTERVAL 7 DAY GROUP BY machine_id, sensor;
COMMENT ON VIEW machine_health IS 'newest reading of each sensor of each machine, with the least, mean and greatest of the last 7 days';

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
