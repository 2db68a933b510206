"""When to start a dead process again, and when to give up. Pure."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_S = 0.5
LONGEST_S = 30.0
HEALTHY_AFTER_S = 60.0  # a process that lived this long has its failures forgiven
GIVE_UP_AFTER = 3  # failures in a row during `up`, before the process was ever ready


@dataclass(frozen=True)
class Failures:
    """What is known of a process that keeps ending. in_a_row: without a healthy life between."""

    in_a_row: int = 0

    def after(self, lived_s: float) -> Failures:
        """Return the count after the process ended once more, having lived that long."""
        return Failures(1 if lived_s >= HEALTHY_AFTER_S else self.in_a_row + 1)

    @property
    def delay_s(self) -> float:
        """Return how long to wait before the next start: doubling, bounded."""
        return min(LONGEST_S, FIRST_S * 2.0 ** max(0, self.in_a_row - 1))

    def hopeless(self, was_ready: bool) -> bool:
        """Say whether `up` should fail rather than go on trying."""
        return not was_ready and self.in_a_row >= GIVE_UP_AFTER
