"""Placement as pure functions on arrays: filters, weights, an engine, and why it chose as it did."""
