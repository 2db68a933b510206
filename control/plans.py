"""Plans of moves between hosts as the record has them: made, shown with how far they are, cancelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from control import children, sql, tables
from control.access import Principal, may, require, sees_all
from control.ledger import Operation, operation_of
from core.clock import now, rfc3339
from core.errors import Conflict, Denied, NotFound, no_such
from core.ids import new_id
from core.states import UNFINISHED, OperationState, Verb

_T, _OP = tables.plan, tables.operation
READY, APPLIED, CANCELLED = "ready", "applied", "cancelled"
SOURCE = "plan"
_RECENT = 200
_ENDED = {OperationState.DONE: "done", OperationState.CANCELLED: CANCELLED}
Row = Mapping[Any, Any]


def write(c: sa.Connection, principal: Principal, values: Mapping[str, Any]) -> str:
    """Store a plan (rebalancing.made) and return its id. Raise Denied."""
    require_may(principal)
    row_id = new_id()
    sql.insert(c, _T, [{
        **values, "id": row_id, "state": READY, "asked_by": principal.name, "created_at": now(),
    }])  # fmt: skip
    return row_id


def require_may(principal: Principal) -> None:
    """Raise Denied unless somebody may plan: a plan is about what others run."""
    if not may(principal, Verb.APPLY_PLAN, None):
        raise Denied(f"{principal.name} may not plan", "plan", {"role": principal.role}, "ask an administrator")


def locked(c: sa.Connection, principal: Principal, plan_id: str) -> sa.RowMapping:
    """Lock and return a plan that nobody has applied or cancelled. Raise Denied, NotFound, Conflict."""
    require(principal, Verb.APPLY_PLAN, None, f"plan/{plan_id}")
    row = c.execute(sa.select(_T).where(_T.c.id == plan_id).with_for_update()).mappings().one_or_none()
    if row is None:
        raise _unknown(plan_id)
    if row["state"] != READY:
        raise Conflict(
            f"plan {plan_id} was {row['state']} already", f"plan/{plan_id}", {"state": row["state"]}, "make a new one"
        )
    return row


def _unknown(plan_id: str) -> NotFound:
    return no_such("plan", plan_id)


def set_applied(c: sa.Connection, plan_id: str) -> None:
    """Note that a plan is carried out; the operation on it says how far it is."""
    c.execute(sa.update(_T).where(_T.c.id == plan_id).values(state=APPLIED))


def cancel(c: sa.Connection, principal: Principal, plan_id: str) -> dict[str, Any]:
    """Let a plan never be applied. Raise Denied, NotFound, Conflict (it was applied)."""
    locked(c, principal, plan_id)
    c.execute(sa.update(_T).where(_T.c.id == plan_id).values(state=CANCELLED))
    return show(c, principal, plan_id)


def get(c: sa.Connection, plan_id: str) -> sa.RowMapping:
    """Return a plan's row. Raise NotFound."""
    row = c.execute(sa.select(_T).where(_T.c.id == plan_id)).mappings().one_or_none()
    if row is None:
        raise _unknown(plan_id)
    return row


def key_of(plan_id: str) -> str:
    """Return how the keys of a plan's migrations begin; the place of the move follows."""
    return f"{SOURCE}-{plan_id}-"


def begun(c: sa.Connection, op: Operation) -> dict[int, Operation]:
    """Return the migrations that the operation on a plan has begun, by the place of their move."""
    return {int(rest): one for rest, one in children.begun(c, op.asked_by, key_of(op.subject_id)).items()}


def moves_since(c: sa.Connection, cluster: str, at: datetime) -> int:
    """Return how many moves of plans for a cluster were begun since a time."""
    plans = c.execute(sa.select(_T.c.id).where(_T.c.cluster == cluster, _T.c.state == APPLIED)
                      .order_by(_T.c.id.desc()).limit(_RECENT)).mappings().all()  # fmt: skip
    return sum(one.created_at > at for op in _operations(c, plans).values() for one in begun(c, op).values())


def under_way(c: sa.Connection) -> Operation | None:
    """Return the operation that carries a plan out now, if there is one."""
    row = c.execute(
        sa.select(_OP).where(_OP.c.verb == Verb.APPLY_PLAN, _OP.c.state.in_(UNFINISHED)).limit(1)
    ).mappings().one_or_none()  # fmt: skip
    return None if row is None else operation_of(row)


def list_(
    c: sa.Connection, principal: Principal, *, limit: int | None = 50, after: str | None = None
) -> list[dict[str, Any]]:
    """Return plans, newest first, without their moves; a user sees none. after: the id of the last one seen."""
    if not sees_all(principal):
        return []
    statement = sa.select(_T).order_by(_T.c.id.desc()).limit(limit)
    if after is not None:
        statement = statement.where(_T.c.id < after)
    rows = c.execute(statement).mappings().all()
    ops = _operations(c, rows)
    return [_view(row, ops.get(row["id"])) for row in rows]


def show(c: sa.Connection, principal: Principal, plan_id: str) -> dict[str, Any]:
    """Return a plan with its moves, and how far each one is. Raise NotFound."""
    row = get(c, plan_id) if sees_all(principal) else None
    if row is None:
        raise _unknown(plan_id)
    op = _operations(c, [row]).get(row["id"])
    done = begun(c, op) if op is not None else {}
    return {
        **_view(row, op), "parameters": row["parameters"], "made_from": row["made_from"], "stays": row["stays"],
        "moves": [_move(move, done.get(n)) for n, move in enumerate(row["moves"])],
    }  # fmt: skip


def _operations(c: sa.Connection, rows: Sequence[Row]) -> dict[str, Operation]:
    """Return plan id -> the operation that carries it out."""
    subjects = [f"plan/{row['id']}" for row in rows]
    found = sql.fetch_in(c, subjects, lambda part: sa.select(_OP).where(_OP.c.subject.in_(part)).order_by(_OP.c.id))
    return {op.subject_id: op for op in map(operation_of, found)}


def _view(row: Row, op: Operation | None) -> dict[str, Any]:
    return {
        "id": row["id"], "kind": row["kind"], "host": row["host"] or None, "cluster": row["cluster"] or None,
        "state": state_of(row, op), "asked_by": row["asked_by"], "moves_planned": len(row["moves"]),
        "effect": row["effect"], "method": row["method"], "optimal": row["optimal"], "eta_s": row["eta_s"],
        "operation": op.id if op else None, "error": op.error if op else None, "created_at": rfc3339(row["created_at"]),
        "finished_at": rfc3339(op.finished_at) if op else None,
    }  # fmt: skip


def state_of(row: Row, op: Operation | None) -> str:
    """Return ready, applying, done, stopped or cancelled. Pure."""
    if op is None:
        return str(row["state"])
    return "applying" if op.state in UNFINISHED else _ENDED.get(op.state, "stopped")


def _move(move: Mapping[str, Any], op: Operation | None) -> dict[str, Any]:
    took = (op.finished_at - op.created_at).total_seconds() if op and op.finished_at else None
    return {
        **move, "state": op.state if op else "waiting", "operation": op.id if op else None, "took_s": took,
        "reason": ((op.reason or None) if op else None),
    }  # fmt: skip
