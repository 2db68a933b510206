-- What was learned from the history: filled by learn.py, judged by backtest.py. docs/analytics.md describes all of it.

CREATE TABLE IF NOT EXISTS learned_instance_use ( -- counted_cpus: p95 of use, or the allocation while history is short
    instance_id VARCHAR NOT NULL, host VARCHAR NOT NULL, cpus DOUBLE, cpu_used_p95 DOUBLE, cpu_used_avg DOUBLE,
    memory_used_mib_p95 DOUBLE, hours DOUBLE NOT NULL, proven BOOLEAN NOT NULL, counted_cpus DOUBLE
);
CREATE TABLE IF NOT EXISTS learned_host_use (    -- in cores
    host VARCHAR NOT NULL, instances BIGINT NOT NULL, unproven BIGINT NOT NULL, allocated_cpus DOUBLE, p95_sum_cpus DOUBLE,
    mean_5_sigma_cpus DOUBLE, demand_cpus DOUBLE
);
ALTER TABLE learned_host_use ADD COLUMN IF NOT EXISTS learned_at TIMESTAMPTZ;
CREATE TABLE IF NOT EXISTS learned_steps (       -- host or image NULL: any
    verb VARCHAR NOT NULL, step VARCHAR NOT NULL, driver VARCHAR, host VARCHAR, image VARCHAR, runs BIGINT NOT NULL,
    p50_s DOUBLE NOT NULL, p95_s DOUBLE NOT NULL
);
CREATE TABLE IF NOT EXISTS learned_failures (    -- host or image NULL: any
    host VARCHAR, image VARCHAR, attempts BIGINT NOT NULL, failures BIGINT NOT NULL, failure_ratio DOUBLE NOT NULL
);
CREATE TABLE IF NOT EXISTS learned_lifetimes (   -- template, owner, flavour NULL: any
    template VARCHAR, owner VARCHAR, flavour VARCHAR, instances BIGINT NOT NULL, ended BIGINT NOT NULL,
    age_s DOUBLE NOT NULL, residual_s DOUBLE NOT NULL
);
CREATE TABLE IF NOT EXISTS learned_demand (      -- highest of a day; low to high holds it four times out of five
    cluster VARCHAR NOT NULL, resource VARCHAR NOT NULL, ahead_days INTEGER NOT NULL, expected DOUBLE NOT NULL,
    low DOUBLE NOT NULL, high DOUBLE NOT NULL, total DOUBLE
);
CREATE TABLE IF NOT EXISTS backtests (           -- what does not beat its baseline is not handed out
    prediction VARCHAR NOT NULL, tested_at TIMESTAMPTZ NOT NULL, cases BIGINT NOT NULL, error DOUBLE, baseline_error DOUBLE,
    unit VARCHAR NOT NULL, baseline VARCHAR NOT NULL, detail VARCHAR NOT NULL, beats BOOLEAN NOT NULL
);

COMMENT ON TABLE learned_instance_use IS 'CPU and memory that an instance used in the last day; counted_cpus is its whole allocation while it has less than 12 h of history';
COMMENT ON TABLE learned_host_use IS 'cores to hold for what runs on a host: the greater of the sum of p95 and mean + 5 sigma, and the allocation of instances with little history';
COMMENT ON TABLE learned_steps IS 'how long a step will take, by driver, host and image (NULL: any); for a host and an image that have not met: p50 of the one x p50 of the other / p50 of any';
COMMENT ON TABLE learned_failures IS 'how likely a step fails on a host or with an image (NULL: any), pulled towards the mean of all';
COMMENT ON TABLE learned_lifetimes IS 'median of the life that is left at an age, by template and owner, by template, by flavour (cpu x MiB), and of all';
COMMENT ON TABLE learned_demand IS 'what will be asked of a cluster on a day ahead: the highest of that day, with an interval that holds four out of five';
COMMENT ON TABLE backtests IS 'how well each prediction did on the past, beside a naive baseline; one that does not beat it is not handed out';

CREATE OR REPLACE VIEW lifetimes AS
WITH seen AS (
    SELECT instance_id, arg_max(instance, occurred_at) AS instance, arg_max(owner, occurred_at) AS owner,
           coalesce(arg_max(template, occurred_at), arg_max(image, occurred_at)) AS template,
           arg_max(cpu, occurred_at) AS cpu, arg_max(memory_mib, occurred_at) AS memory_mib,
           arg_max(host, occurred_at) FILTER (host <> '') AS host, min(occurred_at) AS arrived_at,
           min(occurred_at) FILTER (to_state = 'running') AS started_at,
           max(occurred_at) FILTER (to_state = 'deleted') AS ended_at
    FROM events WHERE kind = 'lifecycle' AND instance_id IS NOT NULL GROUP BY instance_id
)
SELECT *, (epoch_us(coalesce(ended_at, now())) - epoch_us(started_at)) / 1e6 AS lifetime_s, ended_at IS NOT NULL AS ended
FROM seen;
COMMENT ON VIEW lifetimes IS 'arrival, start and end of every instance; lifetime_s of one that has not ended is its age';

CREATE OR REPLACE VIEW arrivals_daily AS
WITH changes AS (
    SELECT arrived_at AS at_time, owner, template, 1 AS arrived, 0 AS departed FROM lifetimes
    UNION ALL SELECT ended_at, owner, template, 0, 1 FROM lifetimes WHERE ended
)
SELECT date_trunc('day', at_time) AS day_at, owner, template, sum(arrived)::BIGINT AS arrived,
       sum(departed)::BIGINT AS departed
FROM changes GROUP BY ALL;
COMMENT ON VIEW arrivals_daily IS 'instances that came and went, by day, owner and template';

CREATE OR REPLACE VIEW outlook AS
WITH newest AS (
    SELECT cluster, resource, arg_max(used, sampled_at) AS used FROM allocation WHERE noun = 'cluster' GROUP BY ALL
)
SELECT cluster, resource, any_value(used) AS used, any_value(total) AS total,
       any_value(high) FILTER (ahead_days = 1) AS tomorrow_high,
       any_value(expected) FILTER (ahead_days = 30) AS in_30_days, any_value(low) FILTER (ahead_days = 30) AS in_30_days_low,
       any_value(high) FILTER (ahead_days = 30) AS in_30_days_high,
       now() + to_days(min(ahead_days) FILTER (expected >= total)) AS runs_out_at,
       now() + to_days(min(ahead_days) FILTER (high >= total)) AS earliest_at,
       now() + to_days(min(ahead_days) FILTER (low >= total)) AS latest_at
FROM learned_demand LEFT JOIN newest USING (cluster, resource) GROUP BY ALL;
COMMENT ON VIEW outlook IS 'what a cluster is asked for, what it will be in 30 days, and when it runs out (NULL: not within a year)';
