"""Many orders of events, of tests/property/test_world.py, with their count."""

from __future__ import annotations

import traceback
from typing import Any

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property.test_world import Ground, World, machine


def run(count: int, number: int) -> dict[str, Any]:
    """Run that many orders of events, drawn from a seed; stop at the first one that breaks something."""
    limits = settings(
        max_examples=count, stateful_step_count=20, deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    World.ended, World.began = 0, 0
    broken = ""
    with Ground() as ground:
        found = seed(number)(machine(ground))
        try:
            run_state_machine_as_test(found, settings=limits)
        except Exception:
            broken = traceback.format_exc()[-3000:]
    return {"interleavings": World.began, "operations_ended": World.ended, "broken": broken}
