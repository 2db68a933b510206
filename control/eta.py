"""What an unfinished operation has still to do, and how long that takes when each step takes what it usually does."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from control.access import Principal
from control.lifecycle import VERBS
from control.machine_stages import stages_of
from control.operation_views import list_
from control.steps import drivers_of, images_of
from core.states import OperationState, StepState, Verb


@dataclass(frozen=True)
class StepLeft:
    """A step that is not done. host, driver: where it runs, as far as that is known; started_at: None before."""

    verb: str
    step: str
    driver: str | None
    host: str | None
    image: str | None
    started_at: datetime | None


def steps_left(c: sa.Connection, principal: Principal, ids: Collection[str]) -> dict[str, list[StepLeft]]:
    """Return what each of some operations has still to do, by id, of those that run.

    Of verbs without a table of steps (import, …) only what runs is known. A user sees only their own.
    """
    ops = [op for op in list_(c, principal, ids=ids, steps=True) if op["state"] == OperationState.RUNNING]
    images = images_of(c, {op["subject"].partition("/")[2] for op in ops})
    drivers = drivers_of(c, {step["host"] for op in ops for step in op["steps"] if step["host"]})
    return {op["id"]: _left(op, images.get(op["subject"].partition("/")[2]), drivers) for op in ops}


def _left(op: Mapping[str, Any], image: str | None, drivers: Mapping[str, str]) -> list[StepLeft]:
    begun = {step["name"]: step for step in op["steps"]}
    names = _names(op, list(begun))
    last = next((step["host"] for step in reversed(op["steps"]) if step["host"]), None)
    found = []
    for name in names:
        step = begun.get(name) or {"state": StepState.PENDING, "host": last, "started_at": None}
        if step["state"] != StepState.DONE:
            runs = step["state"] == StepState.RUNNING
            started_at = datetime.fromisoformat(step["started_at"]) if runs else None
            found.append(StepLeft(op["verb"], name, drivers.get(step["host"]), step["host"], image, started_at))
    return found


def _names(op: Mapping[str, Any], begun: list[str]) -> list[str]:
    """Return the steps of an operation, by the table of its verb where there is one."""
    if op["verb"] == Verb.ENROLL_MACHINE:
        return stages_of(op["parameters"])
    return [rule.name for rule in VERBS[op["verb"]].steps] if op["verb"] in VERBS else begun


def seconds_left(
    steps: Sequence[StepLeft], usual: Sequence[Mapping[str, float | None]], at: datetime
) -> tuple[float, float] | None:
    """Return the seconds that some steps will still take, and what they exceed one time out of twenty.

    usual: p50_s and p95_s of each. None where nothing is known of any. Steps are late independently of each other; one
    that has taken longer than its p50 already is expected to end by its p95.
    """
    middle, spread, known = 0.0, 0.0, False
    for step, one in zip(steps, usual, strict=True):
        p50_s, p95_s = one["p50_s"], one["p95_s"]
        if p50_s is None or p95_s is None:
            continue
        elapsed_s = (at - step.started_at).total_seconds() if step.started_at else 0.0
        goal_s = p50_s if elapsed_s < p50_s else p95_s
        middle += max(goal_s - elapsed_s, 0.0)
        spread += (p95_s - min(goal_s, p95_s)) ** 2
        known = True
    return (middle, middle + math.sqrt(spread)) if known else None
