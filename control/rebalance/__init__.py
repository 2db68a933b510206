"""Rebalancing as pure functions on arrays: which instances had better be on which host, and in which order they go."""
