"""Kill and cut on the lab's real hosts."""
