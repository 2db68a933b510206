"""Each verb on real hosts, each with each fault once, in the middle of a step."""
