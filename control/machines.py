"""Machines as the record has them: how their BMC is reached, every inspection, and what the rules made of the last."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from blueprints.machine import MachineRulesSpec
from control import machine_rules, outbox, sql, tables
from control.access import Principal, require_admin
from control.inventories import changes, losses
from control.ledger import Operation, guard
from control.machine_stages import stages_of
from core.clock import now, rfc3339
from core.errors import Cancelled, Conflict, no_such
from core.ids import new_id
from core.states import UNFINISHED, MachineState

_T, _MAC, _SEEN, _RULE = tables.machine, tables.machine_mac, tables.machine_inventory, tables.machine_rule
NO_SERIALS = frozenset({  # what vendors write where they forgot to write one; not compared
    "", "none", "not specified", "to be filled by o.e.m.", "default string", "system serial number", "0123456789", "0",
})  # fmt: skip


@dataclass(frozen=True)
class MachineRecord:
    """A machine. sealed_password: encrypted (see secrets.py), and shown nowhere."""

    id: str
    name: str
    state: MachineState
    spec: dict[str, Any]
    labels: dict[str, str]
    sealed_password: str
    classified: dict[str, Any]
    checks: list[dict[str, Any]]
    error: dict[str, Any] | None


def _record(row: Mapping[Any, Any]) -> MachineRecord:
    values = {name: row[name] for name in MachineRecord.__dataclass_fields__}
    return MachineRecord(**{**values, "state": MachineState(row["state"])})


def by_id(c: sa.Connection, ids: Collection[str]) -> dict[str, MachineRecord]:
    """Return id -> machine, retired ones too."""
    rows = sql.fetch_among(c, set(ids), sa.select(_T).where(sql.among(_T.c.id)))
    return {row["id"]: _record(row) for row in rows}


def watched(c: sa.Connection) -> list[MachineRecord]:
    """Return the machines whose BMCs are looked at now and then: those that are known, and not being enrolled."""
    rows = c.execute(sa.select(_T).where(_T.c.state.in_((MachineState.READY, MachineState.FAULTY))))
    return [_record(row) for row in rows.mappings()]


def get(c: sa.Connection, name: str) -> MachineRecord:
    """Return one live machine by name, or any by id. Raise NotFound."""
    row = c.execute(sa.select(_T).where(sa.or_(_T.c.live_name == name, _T.c.id == name))).mappings().first()
    if row is None:
        raise no_such("machine", name)
    return _record(row)


def record_inventory(c: sa.Connection, op: Operation, machine_id: str, inventory: Mapping[str, Any]) -> None:
    """Keep what an inspection saw. Raise Stale, Conflict (another machine has its serial or one of its MACs)."""
    guard(c, [op])
    seen = json.loads(json.dumps(inventory))  # as it will be read back
    machine = get(c, machine_id)
    serial = seen["serial"].strip()
    known = serial.lower() not in NO_SERIALS
    macs = sorted({nic["mac"].lower() for nic in seen["nics"] if nic["mac"]})
    _require_own(c, machine, serial if known else None, macs)
    before = last_inventory(c, machine_id)
    found = changes(before, seen) if before else []
    c.execute(sa.update(_T).where(_T.c.id == machine_id).values(live_serial=serial if known else None))
    c.execute(sa.delete(_MAC).where(_MAC.c.machine_id == machine_id))
    if macs:
        sql.insert(c, _MAC, [{"mac": mac, "machine_id": machine_id} for mac in macs])
    row = {"id": new_id(), "machine_id": machine_id, "inventory": seen, "changes": found, "at": now()}
    sql.insert(c, _SEEN, [row])
    outbox.emit(c, "machine", f"machine/{machine_id}", {"machine": machine.name, "changes": found})


def _require_own(c: sa.Connection, machine: MachineRecord, serial: str | None, macs: list[str]) -> None:
    """Raise Conflict when another live machine has the same serial, or a network card with the same address."""
    same = (
        sa.select(_T.c.name, _T.c.live_serial.label("what"))
        .where(_T.c.live_serial.in_([serial] if serial else []), _T.c.id != machine.id)
    )  # fmt: skip
    card = (
        sa.select(_T.c.name, _MAC.c.mac.label("what")).where(_MAC.c.machine_id == _T.c.id, _MAC.c.mac.in_(macs))
        .where(_T.c.id != machine.id).order_by(_MAC.c.mac)
    )  # fmt: skip
    for word, statement in (("serial number", same), ("MAC address", card)):
        found = c.execute(statement.limit(1)).first()
        if found is not None:
            raise Conflict(
                f"machine {found.name} has the {word} {found.what} already", f"machine/{machine.name}",
                {"machine": found.name, word.replace(" ", "_").lower(): found.what},
                f"if it is the same machine, retire {found.name}; else look which of the two BMCs is behind which",
            )  # fmt: skip


def last_inventory(c: sa.Connection, machine_id: str) -> dict[str, Any] | None:
    """Return what the last inspection saw, None before the first."""
    statement = sa.select(_SEEN.c.inventory).where(_SEEN.c.machine_id == machine_id)
    found: dict[str, Any] | None = c.execute(statement.order_by(_SEEN.c.id.desc()).limit(1)).scalar_one_or_none()
    return found


def history(c: sa.Connection, principal: Principal, name: str, limit: int | None = 100) -> list[dict[str, Any]]:
    """Return the inspections of a machine, newest first, each with what differed from the one before."""
    statement = sa.select(_SEEN).where(_SEEN.c.machine_id == get(c, name).id).order_by(_SEEN.c.id.desc()).limit(limit)
    return [
        {"at": rfc3339(row["at"]), "inventory": row["inventory"], "changes": row["changes"]}
        for row in c.execute(statement).mappings()
    ]


def subject(c: sa.Connection, machine_id: str) -> tuple[machine_rules.Subject, list[dict[str, Any]]]:
    """Return a machine as rules see it, and what its last inspection found less of."""
    machine = get(c, machine_id)
    statement = sa.select(_SEEN).where(_SEEN.c.machine_id == machine_id).order_by(_SEEN.c.id.desc()).limit(1)
    row = c.execute(statement).mappings().one()
    lost = losses(row["changes"])
    return machine_rules.Subject(machine.name, machine.labels, row["inventory"], len(lost)), lost


def record_classified(c: sa.Connection, op: Operation, machine_id: str, classified: Mapping[str, Any]) -> None:
    """Write what the rules made of a machine. Raise Stale."""
    guard(c, [op])
    _change(c, machine_id, classified=dict(classified))


def record_checks(c: sa.Connection, op: Operation, machine_id: str, kind: str, checks: list[dict[str, Any]]) -> None:
    """Write the outcome of its checks of one kind (rule, hardware) in place of the last ones of that. Raise Stale."""
    guard(c, [op])
    machine = get(c, machine_id)
    found = [{"kind": kind, **one, "at": rfc3339(now())} for one in checks]
    kept = [one for one in machine.checks if one.get("kind", "rule") != kind]
    _change(c, machine_id, checks=[*kept, *found] if kind != "rule" else [*found, *kept])
    outbox.emit(c, "machine-check", f"machine/{machine_id}", {"machine": machine.name, "checks": found})


def pin_ssh_key(c: sa.Connection, op: Operation, machine_id: str, key: str) -> None:
    """Write the host key that a machine must show from now on. Raise Stale."""
    guard(c, [op])
    spec = get(c, machine_id).spec
    _change(c, machine_id, spec={**spec, "ssh": {**spec["ssh"], "host_key": key}})


def set_ready(c: sa.Connection, op: Operation, machine_id: str) -> None:
    """Mark a machine that went through its stages; a fault that they do not touch stays. Raise Stale."""
    guard(c, [op])
    machine = get(c, machine_id)
    if "check" in stages_of(op.parameters) or _mended(op, machine):
        _change(c, machine_id, state=MachineState.READY, error=None)
    else:
        _change(c, machine_id, state=MachineState(op.parameters["was"]))


def _mended(op: Operation, machine: MachineRecord) -> bool:
    """Say whether nothing but its hardware was wrong with a machine whose hardware alone was tried."""
    failed = (machine.error or {}).get("evidence", {}).get("failed") or []
    only = bool(failed) and all(one.get("kind") == "hardware" for one in failed)
    return only or op.parameters.get("was") == MachineState.READY


def spare_again(c: sa.Connection, machine_id: str) -> None:
    """Let a machine whose commissioning did not come to its end be a spare as before."""
    _change(c, machine_id, spec={**get(c, machine_id).spec, "spare": True})


def set_failed(
    c: sa.Connection, machine_id: str, error: Mapping[str, Any] | None, was: MachineState | None = None
) -> None:
    """Mark a machine whose stages did not come to their end as faulty, with the reason; an abort changes nothing."""
    if get(c, machine_id).state is not MachineState.ENROLLING:
        return
    if was is MachineState.READY and error is not None and error.get("code") == Cancelled.code:
        _change(c, machine_id, state=was)
    else:
        _change(c, machine_id, state=MachineState.FAULTY, error=dict(error) if error else None)


def retire(c: sa.Connection, principal: Principal, name: str) -> None:
    """Forget how to reach a machine; its inspections stay. Raise Denied, NotFound, Conflict (it is being enrolled)."""
    require_admin(principal, "retire machines")
    machine, op = get(c, name), tables.operation
    busy = sa.select(op.c.id).where(op.c.subject == f"machine/{machine.id}", op.c.state.in_(UNFINISHED))
    found = c.execute(busy.limit(1)).scalar_one_or_none()
    if found is not None:
        raise Conflict(
            f"machine {machine.name} is being enrolled", f"machine/{machine.name}", {"operation": found},
            f"rackflow operation cancel {found}",
        )  # fmt: skip
    c.execute(sa.delete(_MAC).where(_MAC.c.machine_id == machine.id))
    free = {"live_name": None, "live_bmc": None, "live_serial": None, "sealed_password": ""}
    _change(c, machine.id, state=MachineState.RETIRED, error=None, **free)


def _change(c: sa.Connection, machine_id: str, **values: Any) -> None:
    c.execute(sa.update(_T).where(_T.c.id == machine_id).values(updated_at=now(), **values))


def set_rules(c: sa.Connection, principal: Principal, rules: MachineRulesSpec) -> None:
    """Replace all rules. Raise Denied, Invalid (an expression)."""
    require_admin(principal, "change the rules for machines")
    machine_rules.understand(rules)
    c.execute(sa.delete(_RULE))
    dumped = rules.model_dump(mode="json")
    rows = [
        {"name": one["name"], "kind": kind, "position": position, "spec": one}
        for kind in ("classify", "checks") for position, one in enumerate(dumped[kind])
    ]  # fmt: skip
    if rows:
        sql.insert(c, _RULE, rows)


def rules(c: sa.Connection) -> MachineRulesSpec:
    """Return all rules, in their order."""
    found: dict[str, list[Any]] = {"classify": [], "checks": []}
    for row in c.execute(sa.select(_RULE).order_by(_RULE.c.position)):
        found[row.kind].append(row.spec)
    return MachineRulesSpec.model_validate(found)


def try_rules(
    c: sa.Connection, principal: Principal, given: MachineRulesSpec | None, names: Collection[str]
) -> list[dict[str, Any]]:
    """Return what rules, by default those in force, would make of machines, by default of all; nothing is written.

    Raise Denied, Invalid, NotFound.
    """
    require_admin(principal, "try rules for machines")
    tried = rules(c) if given is None else given
    machine_rules.understand(tried)
    found: list[dict[str, Any]] = []
    for machine in [get(c, name) for name in names] or [_record(row) for row in _live(c)]:
        if last_inventory(c, machine.id) is None:
            found.append({"machine": machine.name, "classified": None, "checks": [], "passed": None})
            continue
        seen, _lost = subject(c, machine.id)
        checks = machine_rules.check(tried.checks, seen)
        found.append({
            "machine": machine.name, "classified": machine_rules.classify(tried.classify, seen), "checks": checks,
            "passed": all(one["passed"] for one in checks),
        })  # fmt: skip
    return found


def _live(c: sa.Connection) -> list[Mapping[Any, Any]]:
    return list(c.execute(sa.select(_T).where(_T.c.live_name.is_not(None)).order_by(_T.c.id)).mappings())


def list_(c: sa.Connection, principal: Principal, *, state: str | None = None) -> list[dict[str, Any]]:
    """Return live machines, oldest first."""
    statement = sa.select(_T).where(_T.c.live_name.is_not(None)).order_by(_T.c.id)
    if state is not None:
        statement = statement.where(_T.c.state == state)
    return [_view(row) for row in c.execute(statement).mappings()]


def show(c: sa.Connection, principal: Principal, name: str) -> dict[str, Any]:
    """Return one machine with its last inventory. Raise NotFound."""
    row = c.execute(sa.select(_T).where(_T.c.id == get(c, name).id)).mappings().one()
    return {**_view(row), "inventory": last_inventory(c, row["id"])}


def _view(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        "id": row["id"], "name": row["name"], "state": row["state"], "bmc": row["spec"]["bmc"],
        "user": row["spec"]["user"], "system": row["spec"]["system"], "labels": row["labels"],
        "classified": row["classified"], "checks": row["checks"], "error": row["error"],
        "created_at": rfc3339(row["created_at"]), "updated_at": rfc3339(row["updated_at"]),
    }  # fmt: skip
