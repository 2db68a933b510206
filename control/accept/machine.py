"""Enroll machines by their BMCs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from blueprints.machine import MachineSpec
from control import sql, tables
from control.accept.draft import Draft, busy, check_keys, check_unique, specs, unfinished
from control.access import Principal, require
from core.clock import now
from core.errors import Conflict, Invalid
from core.ids import new_id
from core.states import MachineState, Verb

_T = tables.machine


def enroll(c: sa.Connection, principal: Principal, body: Mapping[str, Any]) -> list[Draft]:
    """Make or change rows of machines; one that is known is inspected again. Raise Conflict, Denied, Invalid.

    sealed: name -> password, encrypted (see secrets.py): whoever hands in a request has done that.
    """
    check_keys(body, ("machines", "sealed"))
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
        row_id = _write(c, spec, before, body.get("sealed") or {}, next(ids))
        drafts.append(Draft(f"machine/{row_id}", spec.name, _until(spec)))
    return drafts


def _until(spec: MachineSpec) -> dict[str, Any]:
    """Return the parameter that names the last step, where it is not that of all machines."""
    return {"last": "verify"} if spec.host else {}


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
        "spec": spec.model_dump(mode="json", exclude={"password"}), "state": MachineState.ENROLLING, "error": None,
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
