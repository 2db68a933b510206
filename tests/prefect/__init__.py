"""Against a real Prefect server on its private PostgreSQL, with real worker processes."""
