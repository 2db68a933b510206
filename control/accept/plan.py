"""Applying a plan: refused when what it rests on is not so any more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from blueprints.common import read_spec
from blueprints.plan import ApplyPlan
from control import hosts, plans, rebalancing
from control.accept.draft import Draft, names
from control.access import Principal
from core.errors import Conflict, Invalid
from core.states import HostState


def apply(c: sa.Connection, principal: Principal, body: Mapping[str, Any]) -> list[Draft]:
    """Let a plan be carried out. Raise Invalid, NotFound, Denied, Conflict (the world has moved, another plan is)."""
    (plan_id,) = names(body, "plans")[:1]
    found, wrong = read_spec(ApplyPlan, {key: value for key, value in body.items() if key != "plans"}, "request")
    if found is None:
        raise Invalid(wrong[0]["message"], "request", {"errors": wrong})
    row = plans.locked(c, principal, plan_id)
    other = plans.under_way(c)
    if other is not None:
        raise Conflict(
            f"plan {other.subject_id} is being carried out", other.subject, {"operation": other.id},
            f"wait for it, or: rackflow operation cancel {other.id}",
        )  # fmt: skip
    changed = rebalancing.changed(c, row)
    if changed:
        raise Conflict(
            f"plan {plan_id} is out of date: {'; '.join(changed[:5])}", f"plan/{plan_id}", {"changed": changed},
            _anew(row),
        )  # fmt: skip
    if row["host"]:
        host = hosts.get(c, row["host"])
        if host.state is not HostState.MAINTENANCE:
            hosts.set_state(c, host.id, HostState.DRAINING)
    plans.set_applied(c, plan_id)
    return [Draft(f"plan/{plan_id}", f"{row['kind']} {row['host']}".strip(), found.model_dump(mode="json"))]


def _anew(row: Mapping[Any, Any]) -> str:
    return f"make a new one: rackflow plan {row['kind']} {row['host']}".rstrip()
