"""Steps of operations: begun, ended, failed, undone; each change guarded by the epoch, in batches of few statements."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from control import outbox, sql, tables
from control.ledger import Operation, Step, guard, step_of
from core.clock import now
from core.errors import NotFound, RackflowError
from core.ids import new_id
from core.states import StepState

_STEP, _INSTANCE, _IMAGE, _HOST = tables.step, tables.instance, tables.image, tables.host
_BY_ID = sa.select(_STEP).where(sql.among(_STEP.c.id))
_KEYS = sa.select(_STEP.c.id, _STEP.c.operation_id, _STEP.c.sequence).where(sql.among(_STEP.c.operation_id))
_ENDED = ("id", "state", "changed", "evidence", "error", "finished_at")  # what the end of a step changes
_OF_OPERATIONS = sa.select(_STEP).where(sql.among(_STEP.c.operation_id))
_IMAGE_NAMES = sa.select(_INSTANCE.c.id, _IMAGE.c.name).where(
    _INSTANCE.c.image_id == _IMAGE.c.id, sql.among(_INSTANCE.c.id)
)
_DRIVERS = sa.select(_HOST.c.live_name, _HOST.c.driver).where(sql.among(_HOST.c.live_name))
Begin = tuple[Operation, int, str, str, str]  # operation, sequence, name, host, compensation
End = tuple[Operation, int, bool, dict[str, Any] | None]  # operation, sequence, changed, evidence
Fail = tuple[Operation, int, RackflowError]
Key = tuple[str, int]  # operation id, sequence


def steps_of(c: sa.Connection, ids: Collection[str]) -> dict[str, list[Step]]:
    """Return every operation's steps in order; an empty list where none has begun."""
    rows = sql.fetch_among(c, set(ids), _OF_OPERATIONS)
    found: dict[str, list[Step]] = {one: [] for one in ids}
    for row in sorted(rows, key=lambda row: row["sequence"]):
        found[row["operation_id"]].append(step_of(row))
    return found


def begin_step(
    c: sa.Connection, op: Operation, sequence: int, name: str, host: str = "", compensation: str = ""
) -> Step:
    """Begin a step, or begin it again; one that is done is returned as it is. Raise Stale."""
    return begin_steps(c, [(op, sequence, name, host, compensation)])[0]


def begin_steps(c: sa.Connection, begins: Sequence[Begin], *, looked: bool = False) -> list[Step]:
    """Begin steps of several operations; the answers come in the same order. Raise Stale, then none has begun.

    looked: the caller has looked at these operations in this transaction (ledger.look), and found none that is stale.
    """
    if not looked:
        guard(c, [op for op, *_ in begins])
    known = _by_key(c, {(op.id, sequence) for op, sequence, *_ in begins})
    at = now()
    begun: list[Step] = []
    for op, sequence, name, host, compensation in begins:
        step = known.get((op.id, sequence)) or Step(
            new_id(), op.id, sequence, name, host, StepState.PENDING, 0, None, None, None, None, None, compensation
        )
        if step.state is not StepState.DONE:
            step = replace(
                step, name=name, host=host, state=StepState.RUNNING, attempt=step.attempt + 1, started_at=at,
                finished_at=None, changed=None, evidence=None, error=None, compensation=compensation,
            )  # fmt: skip
        begun.append(step)
    running = [step for step in begun if step.state is StepState.RUNNING]
    sql.update_each(c, _STEP, [_row(s) for s in running if (s.operation_id, s.sequence) in known])
    sql.insert(c, _STEP, [_row(s) for s in running if (s.operation_id, s.sequence) not in known])
    return begun


def note_step(c: sa.Connection, op: Operation, sequence: int, evidence: dict[str, Any]) -> None:
    """Write how far a running step is; the evidence with which it ends takes its place. Raise Stale."""
    guard(c, [op])
    running = sa.and_(
        _STEP.c.operation_id == op.id, _STEP.c.sequence == sequence, _STEP.c.state == StepState.RUNNING
    )
    c.execute(sa.update(_STEP).where(running).values(evidence=evidence))


def end_step(
    c: sa.Connection, op: Operation, sequence: int, *, changed: bool, evidence: dict[str, Any] | None = None
) -> None:
    """End a step well. changed: whether the world had to be changed. Raise Stale, NotFound."""
    end_steps(c, [(op, sequence, changed, evidence)])


def end_steps(
    c: sa.Connection, ends: Sequence[End], *, begun: Collection[Step] = (), looked: bool = False
) -> None:  # fmt: skip
    """End steps of several operations well. Raise Stale or NotFound, then none has ended.

    begun: steps as the caller began them, which need not be read again; looked: as in `begin_steps`.
    """
    changes = [
        (op, sequence, {"state": StepState.DONE, "changed": changed, "evidence": evidence, "error": None})
        for op, sequence, changed, evidence in ends
    ]
    _finish(c, changes, {(step.operation_id, step.sequence): step for step in begun}, looked=looked)


def fail_step(c: sa.Connection, op: Operation, sequence: int, error: RackflowError) -> None:
    """End a step with an error. Raise Stale, NotFound."""
    fail_steps(c, [(op, sequence, error)])


def fail_steps(c: sa.Connection, fails: Sequence[Fail]) -> None:
    """End steps of several operations with errors. Raise Stale or NotFound, then none has ended."""
    _finish(c, [(op, sequence, {"state": StepState.FAILED, "error": e.to_dict()}) for op, sequence, e in fails])


def undo_step(c: sa.Connection, op: Operation, sequence: int) -> None:
    """Mark a step as compensated. Raise Stale, NotFound."""
    undo_steps(c, [(op, sequence)])


def undo_steps(c: sa.Connection, undone: Sequence[tuple[Operation, int]]) -> None:
    """Mark steps of several operations as compensated. Raise Stale or NotFound, then none is marked."""
    _finish(c, [(op, sequence, {"state": StepState.COMPENSATED}) for op, sequence in undone])


def _finish(
    c: sa.Connection, changes: Sequence[tuple[Operation, int, Mapping[str, Any]]],
    begun: Mapping[Key, Step] | None = None, *, looked: bool = False,
) -> None:  # fmt: skip
    if not looked:
        guard(c, [op for op, _, _ in changes])
    known = dict(begun or {})
    known |= _by_key(c, {(op.id, sequence) for op, sequence, _ in changes} - known.keys())
    at = now()
    finished: list[tuple[Operation, Step]] = []
    for op, sequence, values in changes:
        step = known.get((op.id, sequence))
        if step is None:
            raise NotFound(f"operation {op.id} has no step {sequence}", f"operation/{op.id}")
        finished.append((op, replace(step, **{"finished_at": at, **values})))
    sql.update_each(c, _STEP, [{name: getattr(step, name) for name in _ENDED} for _, step in finished])
    _tell(c, finished)


def _by_key(c: sa.Connection, keys: Collection[Key]) -> dict[Key, Step]:
    """Return those of these steps that there are. Most do not exist yet, which an index tells without their rows."""
    if not keys:
        return {}
    places = [sequence for _, sequence in keys]
    span = _KEYS.where(_STEP.c.sequence.between(min(places), max(places)))  # an operation on all hosts has thousands
    rows = sql.fetch_among(c, {op_id for op_id, _ in keys}, span)
    there = [row["id"] for row in rows if (row["operation_id"], row["sequence"]) in keys]
    steps = [step_of(row) for row in sql.fetch_among(c, there, _BY_ID)]
    return {(step.operation_id, step.sequence): step for step in steps}


def _row(step: Step) -> dict[str, Any]:
    return {name: getattr(step, name) for name in Step.__dataclass_fields__}


def _tell(c: sa.Connection, finished: Sequence[tuple[Operation, Step]]) -> None:
    """Write one event per step, with what history groups by: driver and image."""
    about = images_of(c, {op.subject_id for op, _ in finished if op.subject_kind == "instance"})
    drivers = drivers_of(c, {step.host for _, step in finished if step.host})
    events: list[outbox.Event] = []
    for op, step in finished:
        started, ended = step.started_at, step.finished_at
        image = about.get(op.subject_id) if op.subject_kind == "instance" else None
        events.append((
            "step", op.subject,
            {
                "operation": op.id, "verb": op.verb, "subject": op.subject,
                "instance": op.subject_name if op.subject_kind == "instance" else None,
                "host": step.host or None, "driver": drivers.get(step.host),
                "image": op.subject_name if op.subject_kind == "image" else image,
                "step": step.name, "sequence": step.sequence, "attempt": step.attempt, "changed": step.changed,
                "duration_s": (ended - started).total_seconds() if started and ended else None,
                "outcome": (step.error or {}).get("code", "failed") if step.state is StepState.FAILED else step.state,
            },
        ))  # fmt: skip
    outbox.emit_all(c, events)


def images_of(c: sa.Connection, ids: Collection[str]) -> dict[str, str]:
    """Return instance id -> name of its image."""
    return {row["id"]: row["name"] for row in sql.fetch_among(c, ids, _IMAGE_NAMES)}


def drivers_of(c: sa.Connection, names: Collection[str]) -> dict[str, str]:
    """Return host name -> driver of live hosts."""
    return {row["live_name"]: row["driver"] for row in sql.fetch_among(c, names, _DRIVERS)}
