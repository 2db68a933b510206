"""Who holds which operations: one claim per worker, judged by the database's clock; a new epoch at each hand-over."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from control import sql, tables
from control.ledger import Operation, operation_of
from control.waiting import NEVER
from core.states import FINISHED, UNFINISHED, ImageState, OperationState, Verb

_OP = tables.operation
_WORKER = tables.worker
_INSTANCE = tables.instance
_ACTIVE = (
    sa.select(_OP).where(_OP.c.claimed_by == sa.bindparam("worker"), _OP.c.state.in_(UNFINISHED)).order_by(_OP.c.id)
)
_CANDIDATES = (
    sa.select(_OP).where(sql.among(_OP.c.id), _OP.c.state.in_(UNFINISHED)).with_for_update(skip_locked=True)
)
_INSTANCE_EPOCHS = sa.select(_INSTANCE.c.id, _INSTANCE.c.epoch).where(sql.among(_INSTANCE.c.id))
_FORGET = timedelta(days=1)  # a worker that ran out this long ago


def renew_claim(c: sa.Connection, worker_id: str, label: str, claim_s: float) -> bool:
    """Hold the claim for claim_s more seconds; return False when it had run out before (others may have taken over)."""
    at = sql.db_now(c)
    held = c.execute(sa.select(_WORKER.c.expires_at).where(_WORKER.c.id == worker_id)).scalar_one_or_none()
    sql.upsert(
        c, _WORKER, [{"id": worker_id, "label": label[:255], "expires_at": at + timedelta(seconds=claim_s)}]
    )
    c.execute(sa.delete(_WORKER).where(_WORKER.c.expires_at < at - _FORGET, _WORKER.c.id != worker_id))
    return held is None or held >= at


def drop_claim(c: sa.Connection, worker_id: str) -> None:
    """Give up the claim and all that is held under it: at an orderly end, or for a predecessor that is dead.

    It stays known for a while, as one whose claim has run out: a lock that it holds on a host still may be taken.
    """
    release(c, [op.id for op in active_of(c, worker_id)])
    at = sql.db_now(c) - timedelta(microseconds=1)
    c.execute(sa.update(_WORKER).where(_WORKER.c.id == worker_id, _WORKER.c.expires_at > at).values(expires_at=at))


def active_of(c: sa.Connection, worker_id: str) -> list[Operation]:
    """Return the unfinished operations that a worker holds."""
    return [operation_of(row) for row in c.execute(_ACTIVE, {"worker": worker_id}).mappings()]


def release(c: sa.Connection, operation_ids: Sequence[str]) -> None:
    """Let go of unfinished operations so that they are claimed again; whoever still works on one is stale at once."""
    sql.run_in(
        c, operation_ids,
        lambda part: sa.update(_OP)
        .where(_OP.c.id.in_(part), _OP.c.state.in_(UNFINISHED), _OP.c.claimed_by.is_not(None))
        .values(claimed_by=None, epoch=_OP.c.epoch + 1),
    )  # fmt: skip


def set_flow_run(c: sa.Connection, ids: Sequence[str], flow_run_id: str) -> None:
    """Write down the Prefect flow run that was started for operations."""
    sql.run_in(c, ids, lambda part: sa.update(_OP).where(_OP.c.id.in_(part)).values(flow_run_id=flow_run_id))


def claim_stands(c: sa.Connection, worker_id: str) -> bool:
    """Return whether a worker's claim has not run out. One that is not known here is another rackflow's: it stands."""
    until = c.execute(sa.select(_WORKER.c.expires_at).where(_WORKER.c.id == worker_id)).scalar_one_or_none()
    return until is None or until >= sql.db_now(c)


def claim_pending(
    c: sa.Connection, worker_id: str, *, limit: int = 1000, only: Collection[str] | None = None
) -> list[Operation]:
    """Take what is due and what nobody holds any more, each under a new epoch. only: of these ids.

    Where that is more than limit: the higher priorities, of those the oldest. They come oldest first.
    Due: pending, not_before over, the operation it waits for finished, its subject free. Nobody's: running or
    compensating, unclaimed or claimed by a worker whose claim has run out.
    """
    at = sql.db_now(c)
    rows = _lock_claimable(c, _claimable(c, at, limit, only))
    rows += _lock_claimable(c, _gang_mates(c, rows))
    rows = _without_busy_subjects(c, rows)
    epochs = _instance_epochs(c, rows)
    taken: list[Operation] = []
    for row in rows:
        values = dict(row)
        state = OperationState(row["state"])
        values.update(
            claimed_by=worker_id, epoch=max(row["epoch"], epochs.get(row["subject"], 0)) + 1,
            started_at=row["started_at"] or at, attempts=row["attempts"] + 1, flow_run_id=None,
            state=OperationState.RUNNING if state is OperationState.PENDING else state,
        )  # fmt: skip
        taken.append(operation_of(values))
    sql.update_each(c, _OP, [_claimed(op) for op in taken])
    _mark_importing(c, taken)
    return taken


def _claimed(op: Operation) -> dict[str, Any]:
    return {
        "id": op.id, "claimed_by": op.claimed_by, "epoch": op.epoch, "started_at": op.started_at,
        "attempts": op.attempts, "flow_run_id": None, "state": op.state, "open_subject": op.subject, "reason": "",
    }  # fmt: skip


def _claimable(c: sa.Connection, at: datetime, limit: int, only: Collection[str] | None) -> dict[str, int]:
    """Return id -> epoch of what may be claimed; read without locks, so to be looked at again under one."""
    statement = _CLAIMABLE if only is None else _CLAIMABLE.where(_OP.c.id.in_(list(only)))
    return {row.id: row.epoch for row in c.execute(statement, {"at": at, "most": limit})}


def _select_claimable() -> sa.Select[Any]:
    prior, at = _OP.alias("prior"), sa.bindparam("at", type_=_OP.c.not_before.type)
    is_time = sa.or_(_OP.c.not_before.is_(None), _OP.c.not_before <= at)
    due = sa.and_(
        _OP.c.state == OperationState.PENDING, _OP.c.claimed_by.is_(None), is_time,
        sa.or_(_OP.c.after_id.is_(None), prior.c.id.is_(None), prior.c.state.in_(FINISHED)),
    )  # fmt: skip
    ran_out = sa.or_(_WORKER.c.id.is_(None), _WORKER.c.expires_at < at)
    nobodys = sa.and_(
        _OP.c.state != OperationState.PENDING,
        sa.or_(sa.and_(_OP.c.claimed_by.is_(None), is_time), sa.and_(_OP.c.claimed_by.is_not(None), ran_out)),
    )
    return (
        sa.select(_OP.c.id, _OP.c.epoch)
        .select_from(
            _OP.outerjoin(prior, prior.c.id == _OP.c.after_id)
            .outerjoin(_WORKER, _WORKER.c.id == _OP.c.claimed_by)
        )
        .where(_OP.c.state.in_(UNFINISHED), sa.or_(due, nobodys))
        .order_by(_OP.c.priority.desc(), _OP.c.created_at, _OP.c.id).limit(sa.bindparam("most", type_=sa.Integer))
    )  # fmt: skip


_CLAIMABLE = _select_claimable()


def _gang_mates(c: sa.Connection, rows: Sequence[sa.RowMapping]) -> dict[str, int]:
    """Return id -> epoch of what is to be placed together with some operations, though it may not be due yet."""
    gangs = {(row["request_id"], gang) for row in rows if (gang := row["parameters"].get("gang"))}
    prior, have = _OP.alias("prior"), {row["id"] for row in rows}
    mates = sql.fetch_in(
        c, {request_id for request_id, _ in gangs},
        lambda part: sa.select(_OP.c.id, _OP.c.epoch, _OP.c.request_id, _OP.c.parameters)
        .select_from(_OP.outerjoin(prior, prior.c.id == _OP.c.after_id)).where(
            _OP.c.request_id.in_(part), _OP.c.state == OperationState.PENDING, _OP.c.claimed_by.is_(None),
            sa.or_(_OP.c.not_before.is_(None), _OP.c.not_before < NEVER),
            sa.or_(_OP.c.after_id.is_(None), prior.c.id.is_(None), prior.c.state.in_(FINISHED)),
        ),
    )  # fmt: skip
    return {
        row["id"]: row["epoch"] for row in mates
        if (row["request_id"], row["parameters"].get("gang")) in gangs and row["id"] not in have
    }  # fmt: skip


def _lock_claimable(c: sa.Connection, epochs: dict[str, int]) -> list[sa.RowMapping]:
    """Lock candidates; leave out those another worker locks or has claimed since (their epoch has grown)."""
    rows = sql.fetch_among(c, epochs, _CANDIDATES)
    same = [row for row in rows if row["epoch"] == epochs[row["id"]]]
    return sorted(same, key=lambda row: (row["created_at"], row["id"]))


def _without_busy_subjects(c: sa.Connection, rows: list[sa.RowMapping]) -> list[sa.RowMapping]:
    """Leave out what waits behind another unfinished operation of its subject; of several that wait one goes on."""
    waiting = {row["subject"] for row in rows if row["open_subject"] is None}
    busy = {
        row["open_subject"]
        for row in sql.fetch_in(
            c, waiting, lambda part: sa.select(_OP.c.open_subject).where(_OP.c.open_subject.in_(part))
        )
    }
    free: list[sa.RowMapping] = []
    for row in rows:
        if row["open_subject"] is None:
            if row["subject"] in busy:
                continue
            busy.add(row["subject"])
        free.append(row)
    return free


def _instance_epochs(c: sa.Connection, rows: list[sa.RowMapping]) -> dict[str, int]:
    """Return subject -> epoch of its instance: a new claim's epoch lies above all that changed the instance before."""
    ids = [row["subject"].removeprefix("instance/") for row in rows if row["subject"].startswith("instance/")]
    return {f"instance/{row['id']}": row["epoch"] for row in sql.fetch_among(c, ids, _INSTANCE_EPOCHS)}


def _mark_importing(c: sa.Connection, taken: Sequence[Operation]) -> None:
    t = tables.image
    sql.run_in(
        c, [op.subject_id for op in taken if op.verb is Verb.IMPORT],
        lambda part: sa.update(t)
        .where(t.c.id.in_(part), t.c.state == ImageState.PENDING).values(state=ImageState.IMPORTING),
    )  # fmt: skip
