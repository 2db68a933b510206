"""Emptying a host: what is on it, where each could go and why not, and one migration per instance, in the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from blueprints.instance import InstanceSpec
from control import access, leases, moving, placing, requests, sql, tables
from control.accept.change import check_able, check_disks
from control.accept.prepare import PREPARE
from control.access import Principal
from control.hosts import HostRecord
from control.ledger import Operation, guard, operation_of
from control.lifecycle import VERBS, check_allowed
from control.placement import engine
from control.placement.model import Request
from control.placing_learned import Features
from control.placing_view import Cloud
from core.errors import RackflowError, Retryable
from core.ids import on_host
from core.states import UNFINISHED, HostState, InstanceState, OperationState, Verb

SOURCE = "evacuate"
_T, _OP, _REQUEST = tables.instance, tables.operation, tables.request


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
    begin = f"{access.find(c, op.asked_by).id}:{_key(op, '')}"
    moves = c.execute(
        sa.select(_OP).join(_REQUEST, _REQUEST.c.id == _OP.c.request_id)
        .where(_REQUEST.c.idempotency_key.startswith(begin, autoescape=True)).order_by(_OP.c.id)
    ).mappings()  # fmt: skip
    return Progress(state, guests, {row["subject"].removeprefix("instance/"): operation_of(row) for row in moves})


def _key(op: Operation, guest_id: str) -> str:
    return f"{SOURCE}-{op.id}-{op.parameters.get('round', 1)}-{guest_id}"


def plan(
    c: sa.Connection, op: Operation, host: HostRecord, guests: Sequence[Guest], bound: Mapping[str, Sequence[str]],
    features: Features | None = None,
) -> list[Plan]:  # fmt: skip
    """Return how each of some instances could leave its host, as of now.

    bound: instance id -> what the driver says against moving it live; features: measured and learned figures.
    """
    rows = {
        row["id"]: row for row in sql.fetch_in(
            c, [guest.id for guest in guests],
            lambda part: sa.select(_T, sa.literal(host.name).label("host"), sa.literal(host.driver).label("driver"))
            .where(_T.c.id.in_(part)),
        )
    }  # fmt: skip
    addresses = _of_host_only(c, list(rows))
    kept = leases.kept(c, list(rows))
    who = access.find(c, op.asked_by)
    plans: list[Plan] = []
    asked: list[tuple[Plan, Request]] = []
    for guest in guests:
        if guest.id not in rows:
            continue
        against = [*addresses.get(guest.id, ()), *bound.get(guest.id, ())]
        one = _plan(c, who, op, guest, {**rows[guest.id], "capabilities": host.capabilities}, against)
        if one.reason:
            plans.append(one)
        else:
            asked.append((one, _request(c, guest, rows[guest.id], kept.get(guest.id, set()), features or {})))
    return [*plans, *_targets(c, asked, features)]


def _of_host_only(c: sa.Connection, ids: Sequence[str]) -> dict[str, list[str]]:
    """Return instance id -> its addresses that are good on this host only: what runs would lose them."""
    lease, net = tables.lease, tables.network
    found: dict[str, list[str]] = {}
    for row in sql.fetch_in(
        c, ids,
        lambda part: sa.select(lease.c.instance_id, lease.c.address).where(
            lease.c.network_id == net.c.id, net.c.addressing == "host", lease.c.address.is_not(None),
            lease.c.instance_id.in_(part),
        ),
    ):  # fmt: skip
        found.setdefault(row["instance_id"], []).append(f"address {row['address']} is good on its host only")
    return found


def _plan(
    c: sa.Connection, who: Principal, op: Operation, guest: Guest, row: Mapping[str, Any], against: Sequence[str]
) -> Plan:
    """Return what is possible for one instance, apart from room. against: what it cannot be moved live for."""
    live: bool | None = op.parameters.get("live")
    runs = guest.state is InstanceState.RUNNING
    can = runs and bool(row["capabilities"].get(VERBS[Verb.MIGRATE_LIVE].needs)) and not against
    can = can and not row["granted"]
    if live and runs and not can:
        return Plan(guest, f"it cannot be moved live: {'; '.join(against) or 'its host cannot do that'}")
    how = {"live": can and live is not False} if runs else {}
    try:
        check_allowed(Verb.MIGRATE, guest.state, guest.name)
        check_disks(Verb.MIGRATE, row)
        verb, _ = PREPARE[Verb.MIGRATE](c, who, Verb.MIGRATE, row, dict(how))  # type: ignore[arg-type]
        check_able(verb, row)
    except RackflowError as error:
        return Plan(guest, str(error))
    return Plan(guest, live=how.get("live"))


def _request(
    c: sa.Connection, guest: Guest, row: Mapping[Any, Any], kept: set[int], features: Features
) -> Request:
    spec = InstanceSpec.model_validate(row["spec"])
    shape = moving.shape_for(c, Verb.MIGRATE, {}, row, spec, kept)
    return Request(guest.id, guest.name, moving.lasting(shape, row, features))


def _targets(
    c: sa.Connection, asked: Sequence[tuple[Plan, Request]], features: Features | None
) -> list[Plan]:
    """Return plans with a target for each, or with the reason why there is none; room is not taken twice."""
    if not asked:
        return []
    leaving = {one.guest.id for one, _ in asked}
    cloud = Cloud(c, {request.shape for _, request in asked}, lock=False, without=leaving, features=features)
    choices = engine.choose(cloud.view, [request for _, request in asked], features)
    found: list[Plan] = []
    for (one, request), choice in zip(asked, choices, strict=True):
        if choice.host is not None:
            found.append(Plan(one.guest, "", cloud.view.names[choice.host], one.live))
        else:
            why = placing.refusal(cloud, request, choice, {}, {}, None)
            found.append(Plan(one.guest, why.message, passing=isinstance(why, Retryable)))
    return found


def start(c: sa.Connection, op: Operation, one: Plan) -> Operation:
    """Ask for the migration of one instance, for whom the evacuation was asked by; once in each round. Raise Stale."""
    guard(c, [op])
    body: dict[str, Any] = {"instances": [one.guest.id]}
    if one.live is not None:
        body["live"] = one.live
    accepted = requests.submit(
        c, access.find(c, op.asked_by), Verb.MIGRATE, body, source=SOURCE, idempotency_key=_key(op, one.guest.id)
    )
    return accepted.operations[0]


def moved(look: Progress) -> int:
    """Return how many have left."""
    return sum(op.state is OperationState.DONE for op in look.moves.values())
