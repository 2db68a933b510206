"""Emptying a host: what is on it, where each could go and why not, and one migration per instance, in the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from control import children, movable, moving, placing, placing_asleep, requests, sql, tables
from control.hosts import HostRecord
from control.ledger import Operation, operation_of
from control.placement import engine
from control.placement.model import Request
from control.placement.weights import DEFAULT
from control.placing_learned import Features
from control.placing_view import Cloud
from core.errors import Retryable
from core.ids import on_host
from core.states import UNFINISHED, HostState, InstanceState, OperationState, Verb

SOURCE = "evacuate"
_T, _OP = tables.instance, tables.operation


@dataclass(frozen=True)
class Guest:
    """An instance on the host. busy: the operation that changes it."""

    id: str
    name: str
    state: InstanceState
    on_host: str
    memory_mib: int
    busy: Operation | None


@dataclass(frozen=True)
class Plan:
    """How an instance could go. reason: why it cannot; target: where to, as of now; live None: as the verb chooses.

    passing: the reason may pass while the others go.
    """

    guest: Guest
    reason: str = ""
    target: str = ""
    live: bool | None = None
    passing: bool = False


@dataclass(frozen=True)
class Progress:
    """How far it is. moves: the last migration of each instance in this round, by instance id."""

    state: HostState
    guests: list[Guest]
    moves: dict[str, Operation] = field(default_factory=dict)

    @property
    def moving(self) -> list[Operation]:
        return [op for op in self.moves.values() if op.state in UNFINISHED]

    @property
    def ended(self) -> int:
        return len(self.moves) - len(self.moving)

    def stuck(self, plans: Mapping[str, Plan]) -> dict[str, str]:
        """Return name -> reason of those that cannot go, or did not get away."""
        found: dict[str, str] = {}
        for guest in self.guests:
            move, plan = self.moves.get(guest.id), plans.get(guest.id)
            if move is not None and move.state not in UNFINISHED and guest.busy is None:
                found[guest.name] = _why(move)
            elif move is None and guest.busy is None and plan is not None and plan.reason:
                found[guest.name] = plan.reason
        return found

    def waiting(self, plans: Mapping[str, Plan]) -> list[Plan]:
        """Return those that may go now, smallest first: they are away soonest, and free what the others copy over."""
        stuck = self.stuck(plans)
        return [
            plans[g.id] for g in self.guests
            if g.id in plans and g.id not in self.moves and g.busy is None and g.name not in stuck
        ]  # fmt: skip


def still_good(
    plans: Mapping[str, Plan], look: Progress, *, room_came_free: bool = False, last_time: bool = False
) -> dict[str, Plan]:
    """Return the plans that need not be made again. Pure.

    Made again: of what somebody changes or has changed since; when room may have come free, of what could not go for a
    reason that may have passed; before all is given up, of whatever could not go.
    """
    now = {guest.id: guest for guest in look.guests}

    def holds(one: Plan) -> bool:
        guest = now.get(one.guest.id)
        if guest is None or guest.id in look.moves:
            return True
        if guest.busy is not None or guest.state is not one.guest.state:
            return False
        return not (one.reason and (last_time or (room_came_free and one.passing)))

    return {one_id: one for one_id, one in plans.items() if holds(one)}


def _why(move: Operation) -> str:
    said = move.reason or str((move.error or {}).get("message", ""))
    return f"its {move.verb} is {move.state}" + (f": {said}" if said else "")


def progress(c: sa.Connection, op: Operation) -> Progress:
    """Return what is still on the host, smallest first, and what became of the migrations.

    One that the record has elsewhere already is on it until its source was cleared.
    """
    t = tables.host
    state = HostState(c.execute(sa.select(t.c.state).where(t.c.id == op.subject_id)).scalar_one())
    rows = c.execute(
        sa.select(_T.c.id, _T.c.name, _T.c.state, _T.c.host_name, _T.c.memory_mib)
        .where(sa.or_(_T.c.host_id == op.subject_id, _T.c.other_host_id == op.subject_id))
        .order_by(_T.c.memory_mib, _T.c.id)
    ).mappings().all()  # fmt: skip
    running = {
        row["subject"]: operation_of(row) for row in sql.fetch_in(
            c, [f"instance/{row['id']}" for row in rows],
            lambda part: sa.select(_OP).where(_OP.c.subject.in_(part), _OP.c.state.in_(UNFINISHED)),
        )
    }  # fmt: skip
    guests = [
        Guest(row["id"], row["name"], InstanceState(row["state"]), row["host_name"] or on_host(row["id"]),
              row["memory_mib"], running.get(f"instance/{row['id']}"))
        for row in rows
    ]  # fmt: skip
    return Progress(state, guests, children.begun(c, op.asked_by, _key(op, "")))


def _key(op: Operation, guest_id: str) -> str:
    return f"{SOURCE}-{op.id}-{op.parameters.get('round', 1)}-{guest_id}"


def plan(
    c: sa.Connection, op: Operation, host: HostRecord, guests: Sequence[Guest], bound: Mapping[str, Sequence[str]],
    features: Features | None = None, policy: str = DEFAULT,
) -> list[Plan]:  # fmt: skip
    """Return how each of some instances could leave its host, as of now.

    bound: instance id -> what the driver says against moving it live; features: measured and learned figures;
    policy: that which the migrations will be placed by.
    """
    rows = {
        row["id"]: {**row, "capabilities": host.capabilities, "host": host.name, "driver": host.driver}
        for row in sql.fetch_in(c, [guest.id for guest in guests], lambda part: sa.select(_T).where(_T.c.id.in_(part)))
    }  # fmt: skip
    there = [guest for guest in guests if guest.id in rows]
    how = movable.ways(c, [rows[one.id] for one in there], live=op.parameters.get("live"), bound=bound)
    plans = [Plan(one, how[one.id].reason, live=how[one.id].live) for one in there]
    go = [one for one in plans if not one.reason]
    shapes = moving.shapes_for(c, Verb.MIGRATE, {}, [rows[one.guest.id] for one in go], features)
    asked = [(one, Request(one.guest.id, one.guest.name, shapes[one.guest.id])) for one in go]
    return [*(one for one in plans if one.reason), *_targets(c, asked, features, policy)]


def _targets(
    c: sa.Connection, asked: Sequence[tuple[Plan, Request]], features: Features | None, policy: str
) -> list[Plan]:
    """Return plans with a target for each, or with the reason why there is none; room is not taken twice.

    A target may be asleep: it is woken by the migration, where there is still no room by then.
    """
    if not asked:
        return []
    leaving = {one.guest.id for one, _ in asked}
    cloud = Cloud(c, {request.shape for _, request in asked}, lock=False, without=leaving, features=features)
    choices = engine.choose(cloud.view, [request for _, request in asked], features, policy=policy)
    nowhere = [one for one in choices if one.host is None]
    why = {one.request.key: placing.refusal(cloud, one.request, one, {}, {}, None) for one in nowhere}
    why = placing_asleep.told(c, cloud, [one.request for one in nowhere], why, features, policy)
    found: list[Plan] = []
    for (one, request), choice in zip(asked, choices, strict=True):
        error = why.get(request.key)
        target = cloud.view.names[choice.host] if choice.host is not None else placing_asleep.woken_by(error)
        if target:
            found.append(Plan(one.guest, "", target, one.live))
        else:
            assert error is not None
            found.append(Plan(one.guest, error.message, passing=isinstance(error, Retryable)))
    return found


def start(c: sa.Connection, op: Operation, one: Plan) -> Operation:
    """Ask for the migration of one instance, for whom the evacuation was asked by; once in each round. Raise Stale."""
    body: dict[str, Any] = {"instances": [one.guest.id]}
    if one.live is not None:
        body["live"] = one.live
    return requests.submit_for(c, op, Verb.MIGRATE, body, source=SOURCE, key=_key(op, one.guest.id))


def moved(look: Progress) -> int:
    """Return how many have left."""
    return sum(op.state is OperationState.DONE for op in look.moves.values())
