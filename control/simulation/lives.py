"""How long instances will live, as history tells it, and until when each host is expected to be in use.

Figures are those of placement's features (docs/analytics.md, `lifetimes`): medians of the life that is left at an age,
of the first group that is there of owner, template, flavour, all.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from control.placement.model import Floats
from control.placing_lives import medians_of
from control.simulation.arrivals import Arrival

_LEAST_S = 60.0  # that is expected to be left


class Lives:
    """What is told of lives; without figures nothing is."""

    def __init__(self, figures: Mapping[str, Any] | None) -> None:
        self._figures = figures or {}
        self._ages: Sequence[float] = self._figures.get("ages_s") or [0]

    def __bool__(self) -> bool:
        return bool(self._figures.get("all"))

    def left_s(self, arrival: Arrival, age_s: float) -> float:
        """Return how long an instance of an age is expected to live on.

        Where nothing is told of ages, it is as long again as it has lived.
        """
        flavour = f"{arrival.cpu_m / 1000}x{arrival.memory_mib}"
        medians = medians_of(self._figures, arrival.template, arrival.owner, flavour)
        if len(medians) == 1 and age_s > 0:
            return max(age_s, _LEAST_S)
        return max(float(medians[bisect_right(self._ages, age_s, 0, len(medians)) - 1]), _LEAST_S)



class Exits:
    """Until when each host is expected to be in use, as absolute seconds."""

    def __init__(self, hosts: int) -> None:
        self._of: list[dict[int, float]] = [{} for _ in range(hosts)]
        self._latest = np.full(hosts, -np.inf)

    def put(self, h: int, instance: int, exit_s: float) -> None:
        """Expect an instance of host h to leave then, and not earlier than was expected before."""
        self._of[h][instance] = exit_s
        self._latest[h] = max(self._latest[h], exit_s)

    def drop(self, h: int, instance: int) -> None:
        """Forget an instance that left host h."""
        if self._of[h].pop(instance, -np.inf) >= self._latest[h]:
            self._latest[h] = max(self._of[h].values(), default=-np.inf)

    def from_now(self, now_s: float) -> Floats:
        """Return for each host how long it is expected to be in use; 0: nothing is expected of it."""
        return np.maximum(self._latest - now_s, 0.0)
