"""Gangs: instances of one request that are placed all together, or none of them.

A gang is whole in the round that places it: what waits for one of them waits for all, and what fails one of them before
it was placed fails all. Once placed they go their own ways: what becomes of one is nothing to the others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from control import sql, tables
from control.ledger import Operation
from control.placement import engine
from control.placement.affinity import without_others
from control.placement.model import Request, Shape, View
from control.placement.work import empty
from core.errors import Busy, NoFit, RackflowError
from core.states import UNFINISHED, OperationState, Verb

_OP = tables.operation
_FAILED = (OperationState.FAILED, OperationState.COMPENSATED)


def key_of(op: Operation) -> str:
    """Return the gang of an operation, as no other request has it; "" = none, or it was placed before."""
    name = op.parameters.get("gang")
    return "" if not name or op.parameters.get("avoid") else f"{name} of request {op.request_id}"


def held_back(c: sa.Connection, ops: Sequence[Operation]) -> dict[str, RackflowError]:
    """Return operation id -> why it is not placed now, for those whose gang is not whole among these operations."""
    gangs: dict[str, list[Operation]] = defaultdict(list)
    for op in ops:
        if key := key_of(op):
            gangs[key].append(op)
    members = _members(c, gangs)
    found: dict[str, RackflowError] = {}
    for key, mine in gangs.items():
        here = {op.id for op in mine}
        others = [row for row in members[key] if row["id"] not in here]
        failed = [row["subject_name"] for row in others if row["state"] in _FAILED]
        missing = [row["subject_name"] for row in others if row["state"] in UNFINISHED]
        if failed or missing:
            found |= {op.id: _why(op, failed, missing) for op in mine}
    return found


def _members(c: sa.Connection, gangs: Mapping[str, Sequence[Operation]]) -> dict[str, list[Mapping[Any, Any]]]:
    rows = sql.fetch_in(
        c, {op.request_id for ops in gangs.values() for op in ops},
        lambda part: sa.select(_OP.c.id, _OP.c.request_id, _OP.c.subject_name, _OP.c.state, _OP.c.parameters)
        .where(_OP.c.request_id.in_(part), _OP.c.verb == Verb.DEPLOY).order_by(_OP.c.id),
    )  # fmt: skip
    found: dict[str, list[Mapping[Any, Any]]] = {key: [] for key in gangs}
    for row in rows:
        key = f"{row['parameters'].get('gang')} of request {row['request_id']}"
        if key in found:
            found[key].append(row)
    return found


def _why(op: Operation, failed: Sequence[str], missing: Sequence[str]) -> RackflowError:
    gang = op.parameters["gang"]
    if failed:
        return NoFit(
            f"{op.subject_name} is not placed: {', '.join(failed[:3])} of its gang {gang} failed", op.subject,
            {"gang": gang, "failed": failed}, f"put right what {failed[0]} failed for, and ask for all of them again",
        )  # fmt: skip
    told = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if missing[3:] else "")
    evidence = {"gang": gang, "missing": missing}
    return Busy(f"{op.subject_name} waits for {told} of its gang {gang}", op.subject, evidence)


def never_whole(
    view: View, requests: Sequence[Request], errors: Mapping[str, RackflowError]
) -> dict[str, RackflowError]:
    """Return the errors of requests, by their keys; NoFit where each of a gang could be placed, but never all. Pure.

    Never: they do not all fit on the enabled hosts if nothing else ran. Hosts not known yet count as hope.
    """
    gangs: dict[str, list[Request]] = defaultdict(list)
    for request in requests:
        if request.gang:
            gangs[request.gang].append(request)
    possible: dict[frozenset[tuple[Shape, int]], bool] = {}
    found = dict(errors)
    for gang, mine in gangs.items():
        if _hopes(view) or any(isinstance(errors[one.key], NoFit) for one in mine):
            continue
        alike = frozenset(Counter(one.shape for one in mine).items())
        if alike not in possible:
            shapes = [one.shape for one in mine]
            whole = [one._replace(shape=without_others(one.shape, shapes)) for one in mine]
            choices = engine.choose(view, whole, tell=False, work=empty(view))
            possible[alike] = all(choice.host is not None for choice in choices)
        if not possible[alike]:
            found |= {one.key: _too_much(gang, len(mine), errors[one.key]) for one in mine}
    return found


def _hopes(view: View) -> bool:
    return bool(view.unknown.any() or any(store.unseen.any() for store in view.stores.values()))


def _too_much(gang: str, size: int, error: RackflowError) -> NoFit:
    said = f"all {size} of gang {gang} do not fit in this cloud together, whatever else runs"
    return NoFit(f"{said}: {error.message}", error.subject, error.evidence, error.fix)


def all_refused(keys: Mapping[str, str], errors: Mapping[str, RackflowError]) -> dict[str, RackflowError]:
    """Return errors by operation id; where one of a gang can never be placed, neither can the others. Pure.

    keys: operation id -> gang, "" = none.
    """
    never = {keys[one]: error for one, error in errors.items() if keys.get(one) and isinstance(error, NoFit)}
    return {
        one: NoFit(f"{error.message}; of its gang: {never[keys[one]].message}", error.subject, error.evidence)
        if keys.get(one) in never and not isinstance(error, NoFit) else error
        for one, error in errors.items()
    }  # fmt: skip


def mates(keys: Mapping[str, str], lost: Collection[str]) -> set[str]:
    """Return what is lost with some operations: they and all of their gangs, by id. Pure."""
    gone = {keys[one] for one in lost if keys.get(one)}
    return {*lost, *(one for one, key in keys.items() if key in gone)}
