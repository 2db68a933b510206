"""Kill and cut at every step: the matrix of verbs and faults, and one poisoned instance among many."""
