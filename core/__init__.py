"""Words that every room shares: errors, states, units, ids, clock, settings. Standard library only."""
