"""Enroll machines by their BMCs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from blueprints.common import read_spec
from blueprints.machine import HardwareSpec, MachineSpec
from control import machine_hosts, machines, sql, tables
from control.accept.draft import Draft, busy, check_keys, check_unique, names, specs, unfinished
from control.access import Principal, require
from control.machine_stages import LOOKS, stages_for
from control.machines import MachineRecord
from core.clock import now
from core.errors import Conflict, Invalid
from core.ids import new_id
from core.states import MachineState, Verb

_T = tables.machine


def enroll(c: sa.Connection, principal: Principal, body: Mapping[str, Any]) -> list[Draft]:
    """Make or change rows of machines; one that is known is inspected again. Raise Conflict, Denied, Invalid.

    sealed: name -> password, encrypted (see secrets.py): whoever hands in a request has done that.
    names: look again at those that are known, as they are; hardware: only try that; commission: make hosts of spares.
    """
    check_keys(body, ("machines", "sealed", "names", "hardware", "commission"))
    if "names" in body:
        return _look_again(c, principal, body)
    wanted = specs(body, "machines", MachineSpec)
    check_unique([spec.name for spec in wanted], "machine")
    check_unique([bmc_of(spec) for spec in wanted], "BMC")
    for spec in wanted:
        require(principal, Verb.ENROLL_MACHINE, None, f"machine/{spec.name}")
        if spec.password is not None:
            raise Invalid(f"the password of {spec.name} is not encrypted", f"machine/{spec.name}")
    rows = c.execute(sa.select(_T).where(_T.c.live_name.is_not(None))).mappings().all()
    known = {row["name"]: row for row in rows}
    owners = {row["live_bmc"]: row["name"] for row in rows}
    running = unfinished(c, [f"machine/{row['id']}" for row in rows])
    ids = iter(sorted(new_id() for _ in wanted))  # so that lists show them in the order asked for
    drafts: list[Draft] = []
    for spec in wanted:
        _check_bmc(spec, owners)
        before = known.get(spec.name)
        if before is not None and f"machine/{before['id']}" in running:
            raise busy(running[f"machine/{before['id']}"][0])
        machine_hosts.require_may_inspect(c, spec.name, spec.model_dump(include={"bmc"}))
        row_id = _write(c, spec, before, body.get("sealed") or {}, next(ids))
        drafts.append(_draft(row_id, spec.name, stages_for(spec.model_dump(mode="json")), before))
    return drafts


def _draft(row_id: str, name: str, stages: list[str], before: Mapping[Any, Any] | None, **more: Any) -> Draft:
    was = {"was": before["state"]} if before is not None else {}
    return Draft(f"machine/{row_id}", name, {"stages": stages, **was, **more})


def _look_again(c: sa.Connection, principal: Principal, body: Mapping[str, Any]) -> list[Draft]:
    """Draft a look at machines that are known, without a change of how they are reached."""
    known = at_rest(c, principal, Verb.ENROLL_MACHINE, names(body, "names"))
    hardware = _hardware(body.get("hardware"), known)
    drafts = []
    for one in known:
        if not hardware:
            machine_hosts.require_may_inspect(c, one.name, one.spec)
        spec = _commissioned(one) if body.get("commission") else one.spec
        looks = {"state": MachineState.ENROLLING, "spec": spec, "updated_at": now()}
        c.execute(sa.update(_T).where(_T.c.id == one.id).values(looks))
        stages = ["hardware"] if hardware else stages_for(spec) if body.get("commission") else list(LOOKS)
        more = {"commission": True} if body.get("commission") else hardware
        drafts.append(_draft(one.id, one.name, stages, {"state": one.state}, **more))
    return drafts


def at_rest(c: sa.Connection, principal: Principal, verb: Verb, wanted: Sequence[str]) -> list[MachineRecord]:
    """Return the machines of those names. Raise NotFound, Denied, Conflict (retired, or something is under way)."""
    known = [machines.get(c, name) for name in wanted]
    running = unfinished(c, [f"machine/{one.id}" for one in known])
    for one in known:
        require(principal, verb, None, f"machine/{one.name}")
        if one.state is MachineState.RETIRED:
            raise Conflict(f"machine {one.name} is retired", f"machine/{one.name}", fix="enroll it again by its BMC")
        if f"machine/{one.id}" in running:
            raise busy(running[f"machine/{one.id}"][0])
    return known


def _commissioned(machine: MachineRecord) -> dict[str, Any]:
    """Return the spec of a spare that is to become a host. Raise Conflict for another machine."""
    if not machine.spec.get("spare"):
        raise Conflict(
            f"machine {machine.name} is no spare", f"machine/{machine.name}", {},
            "enroll it with spare: true and host: what it becomes",
        )  # fmt: skip
    return {**machine.spec, "spare": False}


def _hardware(given: Any, known: Sequence[MachineRecord]) -> dict[str, Any]:
    """Return what is to be tried on machines, nothing for a plain look. Raise Invalid: there is no way in."""
    if given is None:
        return {}
    spec, wrong = read_spec(HardwareSpec, given, "hardware")
    if spec is None:
        raise Invalid(f"{wrong[0]['field']}: {wrong[0]['message']}", "request", {"errors": wrong})
    for one in known:
        if not one.spec.get("ssh"):
            raise Invalid(
                f"nothing tells how machine {one.name} is reached by SSH, and its hardware is tried from within",
                f"machine/{one.name}", fix=f"enroll {one.name} again with ssh: the address of what runs on it",
            )  # fmt: skip
    return {"hardware": spec.model_dump(mode="json")}


def bmc_of(spec: MachineSpec) -> str:
    """Return what a machine's BMC is known by: two machines may share one only as different systems of it."""
    return spec.bmc.rstrip("/").lower() + (f"#{spec.system}" if spec.system else "")


def _check_bmc(spec: MachineSpec, owners: Mapping[str, str]) -> None:
    owner = owners.get(bmc_of(spec), spec.name)
    if owner != spec.name:
        raise Conflict(
            f"the BMC {spec.bmc} is machine {owner}'s already", f"machine/{spec.name}", {"machine": owner},
            f"a machine can be enrolled once: retire {owner}, or name another system of that BMC",
        )  # fmt: skip


def _write(
    c: sa.Connection, spec: MachineSpec, before: Mapping[Any, Any] | None, sealed: Mapping[str, str], row_id: str
) -> str:
    """Insert or update a row; return its id. A password is kept while its BMC is the same: another never gets it."""
    at = now()
    same = before is not None and before["live_bmc"] == bmc_of(spec) and not spec.password_file
    kept = before["sealed_password"] if before is not None and same else ""
    values = {
        "live_bmc": bmc_of(spec), "sealed_password": sealed.get(spec.name) or kept, "labels": spec.labels,
        "spec": _with_key(spec, before), "state": MachineState.ENROLLING, "error": None,
        "updated_at": at,
    }  # fmt: skip
    if before is not None:
        c.execute(sa.update(_T).where(_T.c.id == before["id"]).values(values))
        return str(before["id"])
    sql.insert(c, _T, [{
        "id": row_id, "name": spec.name, "live_name": spec.name, "live_serial": None, "classified": {}, "checks": [],
        "created_at": at, **values,
    }])  # fmt: skip
    return row_id


def _with_key(spec: MachineSpec, before: Mapping[Any, Any] | None) -> dict[str, Any]:
    """Return a spec as it is kept: with the host key that was pinned, while it is the same address."""
    found: dict[str, Any] = spec.model_dump(mode="json", exclude={"password"})
    ssh, old = found["ssh"], (before["spec"].get("ssh") if before is not None else None) or {}
    if ssh and not ssh["fingerprint"] and (ssh["address"], ssh["port"]) == (old.get("address"), old.get("port")):
        ssh["host_key"] = old.get("host_key", "")
    return found
