"""The history in DuckDB: lifecycle events, steps, usage samples; kept by one owner process, asked over its socket."""
