"""Verbs that are asked for at a time: once, again and again, or some time after each start of an instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from control import instances, sql, tables
from control.accept.change import read_parameters
from control.access import Principal, require, sees_all
from core.clock import now, rfc3339
from core.errors import Conflict, Invalid, no_such
from core.ids import new_id
from core.states import Verb

_T, _I = tables.schedule, tables.instance
_AFTER_START = sa.select(_T.c.id, _T.c.after_start_s).where(
    sql.among(_T.c.instance_id), _T.c.after_start_s.is_not(None), _T.c.enabled.is_(True)
)
LEAST_EVERY_S = 60


@dataclass(frozen=True)
class Due:
    """What is to be asked for now. key: of the request, so that a worker that dies in between asks only once."""

    id: str
    instance_id: str
    verb: Verb
    parameters: dict[str, Any]
    asked_by: str
    key: str


def create(
    c: sa.Connection, principal: Principal, instance: str, verb: Verb, parameters: Mapping[str, Any], *,
    at: datetime | None = None, every_s: int | None = None, after_start_s: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Schedule a verb: once at a time, every so many seconds (first at `at`), or after each start of the instance.

    Raise Invalid (verb, parameters, times), NotFound, Denied, Conflict (gone).
    """
    wanted = instances.id_of(c, principal, instance)
    row = c.execute(sa.select(_I.c.name, _I.c.owner, _I.c.live_name).where(_I.c.id == wanted)).one()
    require(principal, verb, row.owner, f"instance/{row.name}")
    if row.live_name is None:
        raise Conflict(f"instance {row.name} is deleted", f"instance/{row.name}")
    row_id = new_id()
    sql.insert(c, _T, [{
        "id": row_id, "instance_id": wanted, "verb": verb, "parameters": read_parameters(verb, parameters),
        "asked_by": principal.name, "every_s": every_s, "after_start_s": after_start_s,
        "next_at": _first(at, every_s, after_start_s), "last_at": None, "last": None, "enabled": True,
        "created_at": now(),
    }])  # fmt: skip
    return get(c, principal, row_id)


def _first(at: datetime | None, every_s: int | None, after_start_s: int | None) -> datetime | None:
    """Return when it runs first; None: that is counted from the next start. Raise Invalid."""
    if (after_start_s is not None) == (at is not None or every_s is not None):
        raise Invalid(
            "a schedule has a time (at), a period (every_s), or a time after each start (after_start_s)", "schedule",
            {"at": rfc3339(at), "every_s": every_s, "after_start_s": after_start_s}, "give at and every_s, or only one",
        )  # fmt: skip
    if every_s is not None and every_s < LEAST_EVERY_S:
        raise Invalid(f"every {every_s} s is too often", "schedule", {}, f"at least {LEAST_EVERY_S} s")
    if after_start_s is not None and after_start_s < 0:
        raise Invalid("after_start_s cannot be negative", "schedule")
    if at is not None and at <= now():
        raise Invalid(f"{rfc3339(at)} is over", "schedule", {"now": rfc3339(now())}, "give a time to come")
    return at if at is not None or every_s is None else now() + timedelta(seconds=every_s)


def list_(c: sa.Connection, principal: Principal, *, instance: str | None = None) -> list[dict[str, Any]]:
    """Return the schedules of live instances, oldest first; of one by name or id. A user sees those of their own."""
    statement = _select(principal)
    if instance is not None:
        statement = statement.where(sa.or_(_I.c.live_name == instance, _I.c.id == instance))
    return [_view(row) for row in c.execute(statement).mappings()]


def get(c: sa.Connection, principal: Principal, schedule_id: str) -> dict[str, Any]:
    """Return one schedule. Raise NotFound."""
    row = c.execute(_select(principal).where(_T.c.id == schedule_id)).mappings().one_or_none()
    if row is None:
        raise no_such("schedule", schedule_id)
    return _view(row)


def delete(c: sa.Connection, principal: Principal, schedule_id: str) -> None:
    """Take a schedule away. Raise NotFound."""
    get(c, principal, schedule_id)
    c.execute(sa.delete(_T).where(_T.c.id == schedule_id))


def set_enabled(c: sa.Connection, principal: Principal, schedule_id: str, enabled: bool) -> bool:
    """Let a schedule run, or rest; return whether that changed anything. What it missed at rest is not made up for.

    Raise NotFound, Conflict (it runs once, and its time is over).
    """
    known = get(c, principal, schedule_id)
    if known["enabled"] is enabled:
        return False
    row = c.execute(sa.select(_T).where(_T.c.id == schedule_id).with_for_update()).mappings().one()
    following = row["next_at"]
    if enabled and following is not None and following <= now():
        following = _following(row, now())
        if following is None and row["after_start_s"] is None:
            raise Conflict(
                f"schedule {schedule_id} was to run once, and its time is over", f"schedule/{schedule_id}",
                {"next_at": known["next_at"]}, "add a new one",
            )  # fmt: skip
    c.execute(sa.update(_T).where(_T.c.id == schedule_id).values(enabled=enabled, next_at=following))
    return True


def due(c: sa.Connection, at: datetime) -> list[Due]:
    """Return what is to be asked for now, the longest due first; what was missed meanwhile counts once."""
    rows = c.execute(
        sa.select(_T)
        .where(
            _T.c.instance_id == _I.c.id, _I.c.live_name.is_not(None), _T.c.enabled.is_(True), _T.c.next_at <= at
        )
        .order_by(_T.c.next_at, _T.c.id)
    ).mappings()  # fmt: skip
    return [
        Due(
            row["id"], row["instance_id"], Verb(row["verb"]), row["parameters"], row["asked_by"],
            f"schedule-{row['id']}-{rfc3339(row['next_at'])}",
        )
        for row in rows
    ]  # fmt: skip


def ran(c: sa.Connection, schedule_id: str, result: Mapping[str, Any]) -> None:
    """Write that a schedule was run, with what came of the request, and when it runs next."""
    row = c.execute(sa.select(_T).where(_T.c.id == schedule_id).with_for_update()).mappings().one_or_none()
    if row is None:
        return
    at = now()
    c.execute(
        sa.update(_T).where(_T.c.id == schedule_id)
        .values(last_at=at, last=dict(result), next_at=_following(row, at))
    )  # fmt: skip


def _following(row: Mapping[Any, Any], at: datetime) -> datetime | None:
    """Return the first time after `at` in a schedule's rhythm, None where it has none."""
    if row["every_s"] is None or row["next_at"] is None:
        return None
    periods = max(0, int((at - row["next_at"]).total_seconds() // row["every_s"])) + 1
    return row["next_at"] + timedelta(seconds=periods * row["every_s"])  # type: ignore[no-any-return]


def started(c: sa.Connection, instance_ids: Sequence[str]) -> None:
    """Count the schedules that run some time after a start of these instances from now on."""
    at = now()
    rows = sql.fetch_among(c, instance_ids, _AFTER_START)
    sql.update_each(
        c, _T, [{"id": row["id"], "next_at": at + timedelta(seconds=row["after_start_s"])} for row in rows]
    )


def _select(principal: Principal) -> sa.Select[Any]:
    statement = (
        sa.select(_T, _I.c.name.label("instance"))
        .where(_T.c.instance_id == _I.c.id, _I.c.live_name.is_not(None)).order_by(_T.c.id)
    )  # fmt: skip
    return statement if sees_all(principal) else statement.where(_I.c.owner == principal.name)


def _view(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        "id": row["id"], "instance": row["instance"], "instance_id": row["instance_id"], "verb": row["verb"],
        "parameters": row["parameters"], "asked_by": row["asked_by"], "every_s": row["every_s"],
        "after_start_s": row["after_start_s"], "next_at": rfc3339(row["next_at"]), "last_at": rfc3339(row["last_at"]),
        "last": row["last"], "enabled": row["enabled"], "created_at": rfc3339(row["created_at"]),
    }  # fmt: skip
