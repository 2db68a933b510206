"""Arrivals replayed through the placement engine: what would have become of them on other hosts, by another policy."""
