"""How far a plan is while it is carried out, what may begin next, and what stops it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from control import operations, plans, requests, sql, tables
from control.ledger import Operation, guard, operation_of
from control.rebalance.timing import Limits, may_begin
from core.states import UNFINISHED, HostState, OperationState, Verb

_H, _OP = tables.host, tables.operation
_TARGETS = frozenset({HostState.READY})
_SOURCES = frozenset({HostState.READY, HostState.DISABLED, HostState.DRAINING, HostState.MAINTENANCE})


@dataclass(frozen=True)
class Look:
    """A plan as it stands. begun: migrations by the place of their move; hosts: name -> state; at: the clock."""

    moves: list[dict[str, Any]]
    begun: dict[int, Operation]
    hosts: Mapping[str, str]
    at: datetime
    limits: Limits = field(default_factory=Limits)

    @property
    def moving(self) -> list[int]:
        return [n for n, op in self.begun.items() if op.state in UNFINISHED]

    @property
    def over(self) -> set[int]:
        return {n for n, op in self.begun.items() if op.state is OperationState.DONE}

    @property
    def next(self) -> list[int]:
        """Return which moves may begin now."""
        ways = [(move["from"], move["to"], move["after"]) for move in self.moves]
        waiting = [n for n in range(len(self.moves)) if n not in self.begun]
        return may_begin(ways, waiting, self.moving, self.over, self.limits)

    def problem(self, patience: timedelta) -> str:
        """Return why nothing more may begin, "" = it may: a move failed, or waits for too long, or a host went."""
        for _, op in sorted(self.begun.items()):
            if op.state not in UNFINISHED and op.state is not OperationState.DONE:
                said = op.reason or str((op.error or {}).get("message", ""))
                return f"{op.verb} of {op.subject_name} is {op.state}" + (f": {said}" if said else "")
            if op.state is OperationState.PENDING and op.reason and self.at - op.created_at > patience:
                return f"{op.verb} of {op.subject_name} waits for too long: {op.reason}"
        for n in range(len(self.moves)):
            if n not in self.over and (wrong := self._host_gone(self.moves[n])):
                return wrong
        return ""

    def _host_gone(self, move: Mapping[str, Any]) -> str:
        ends: tuple[tuple[str, Collection[str]], ...] = ((move["from"], _SOURCES), (move["to"], _TARGETS))
        for name, good in ends:
            state = self.hosts.get(name, "gone")
            if state not in good:
                return f"host {name} is {state}: {move['instance']} cannot go from {move['from']} to {move['to']}"
        return ""

    def told(self) -> dict[str, Any]:
        """Return how far it is, as the step's evidence."""
        names = [self.moves[n]["instance"] for n in sorted(self.moving)]
        return {"moves": len(self.moves), "moved": len(self.over), "moving": names}


def look(c: sa.Connection, op: Operation) -> Look:
    """Return how far the plan of an operation is."""
    row = plans.get(c, op.subject_id)
    ends = {move[end] for move in row["moves"] for end in ("from", "to")}
    hosts = sql.fetch_in(c, ends, lambda part: sa.select(_H.c.name, _H.c.state).where(_H.c.live_name.in_(part)))
    limits = Limits(**{key: op.parameters[key] for key in ("parallel", "per_host") if op.parameters.get(key)})
    states = {host["name"]: host["state"] for host in hosts}
    return Look(row["moves"], plans.begun(c, op), states, sql.db_now(c), limits)


def stop(c: sa.Connection, op: Operation, look: Look) -> None:
    """Cancel what was asked for and nobody has begun; what is under way comes to its end. Raise Stale."""
    guard(c, [op])
    waiting = [one.id for one in look.begun.values() if one.state is OperationState.PENDING]
    rows = sql.fetch_in(
        c, waiting,
        lambda part: sa.select(_OP).where(_OP.c.id.in_(part), _OP.c.state == OperationState.PENDING).with_for_update(),
    )
    operations.cancel_all(c, [operation_of(row) for row in rows], f"cancelled: plan {op.subject_id} was stopped")


def begin(c: sa.Connection, op: Operation, n: int, move: Mapping[str, Any]) -> Operation:
    """Ask for a move, once. Raise Stale, and what a request for a migration raises."""
    body: dict[str, Any] = {"instances": [move["instance_id"]], "host": move["to"]}
    if move["live"] is not None:
        body["live"] = move["live"]
    return requests.submit_for(
        c, op, Verb.MIGRATE, body, source=plans.SOURCE, key=f"{plans.key_of(op.subject_id)}{n}"
    )
