"""Enroll and retire hosts; reconcile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from blueprints.host import HostSpec
from control import clusters, hosts, instances_on, sql, tables
from control.accept.draft import Draft, busy, check_keys, check_unique, names, specs, unfinished
from control.access import Principal, require
from control.hosts import HostRecord
from core.clock import now
from core.errors import Conflict, Unsupported
from core.ids import new_id
from core.states import HostState, Verb

_T = tables.host
CONFIGURED = ("kvm", "lxd")
CLOUD = "cloud/reconcile"  # one at a time


def enroll(c: sa.Connection, principal: Principal, body: Mapping[str, Any]) -> list[Draft]:
    """Make or change rows of hosts; one that is enrolled is looked at again. Raise Conflict, Denied, NotFound."""
    check_keys(body, ("hosts",))
    wanted = specs(body, "hosts", HostSpec)
    check_unique([spec.name for spec in wanted], "host")
    check_unique([_where(spec.address, spec.port, spec.place) for spec in wanted], "address")
    for spec in wanted:
        require(principal, Verb.ENROLL, None, f"host/{spec.name}")
    known = {h.name: h for h in hosts.records(c)}
    running = unfinished(c, [f"host/{h.id}" for h in known.values()])
    cluster_ids = {name: clusters.id_of(c, name) for name in {spec.cluster for spec in wanted}}
    ids = iter(sorted(new_id() for _ in wanted))  # so that lists show them in the order asked for
    drafts: list[Draft] = []
    for spec in wanted:
        _check_address(spec, known)
        before = known.get(spec.name)
        values = row_values(spec, cluster_ids[spec.cluster])
        parameters: dict[str, Any] = {}
        if before is None:
            row_id = _insert(c, next(ids), spec, values)
        else:
            row_id = before.id
            if f"host/{row_id}" in running:
                raise busy(running[f"host/{row_id}"][0])
            parameters = _update(c, spec, before, values)
        drafts.append(Draft(f"host/{row_id}", spec.name, parameters))
    return drafts


def row_values(spec: HostSpec, cluster_id: str) -> dict[str, Any]:
    """Return the columns of host that a spec decides."""
    return {
        "address": spec.address, "port": spec.port, "user": spec.user,
        "key_file": spec.key_file or spec.password_file or "",
        "cluster_id": cluster_id, "cpu_overcommit": spec.cpu_overcommit, "memory_overcommit": spec.memory_overcommit,
        "cpu_learned_max": spec.cpu_learned_max,
        "spec": spec.model_dump(mode="json"), "labels": spec.labels, "updated_at": now(),
    }  # fmt: skip


def _where(address: str, port: int, place: str | None) -> str:
    return f"{address} port {port}" + (f" {place}" if place else "")


def _check_address(spec: HostSpec, known: Mapping[str, HostRecord]) -> None:
    for other in known.values():
        where = _where(spec.address, spec.port, spec.place)
        if _where(other.address, other.port, other.place) == where and other.name != spec.name:
            raise Conflict(
                f"{where} is host {other.name} already", f"host/{spec.name}",
                {"host": other.name}, "a machine can be enrolled once",
            )  # fmt: skip


def _insert(c: sa.Connection, row_id: str, spec: HostSpec, values: dict[str, Any]) -> str:
    sql.insert(c, _T, [{
        "id": row_id, "name": spec.name, "live_name": spec.name, "driver": spec.driver or "", "host_key": "",
        "state": HostState.ENROLLING, "cpus": 0.0, "memory_mib": 0, "facts": {}, "capabilities": {}, "version": 0,
        "seen_at": None, "error": None, "created_at": values["updated_at"], **values,
    }])  # fmt: skip
    return row_id


def _update(c: sa.Connection, spec: HostSpec, before: HostRecord, values: dict[str, Any]) -> dict[str, Any]:
    """Change a host's row; return the operation's parameters: what changes only when the machine was found the same."""
    moved = _where(before.address, before.port, before.place) != _where(spec.address, spec.port, spec.place)
    other_driver = bool(spec.driver and before.driver and spec.driver != before.driver)
    new_key = moved or bool(spec.fingerprint and spec.fingerprint != before.spec.get("fingerprint"))
    held = instances_on.names_on(c, before.id)
    if held and (other_driver or (moved and not (spec.fingerprint and before.facts.get("machine_id")))):
        raise Conflict(
            f"host {spec.name} holds {len(held)} instances: it cannot become another machine", f"host/{spec.name}",
            {"instances": held, "address": before.address, "driver": before.driver},
            "if it is the same one at a new address, give the fingerprint of its key; else retire it first",
        )  # fmt: skip
    if held and new_key and before.facts.get("machine_id"):
        becomes = {key: value for key, value in values.items() if key != "updated_at"}
        return {"becomes": becomes, "machine_id": before.facts["machine_id"]}
    if before.state in (HostState.FAULTY, HostState.ENROLLING):
        values = {**values, "state": HostState.ENROLLING, "error": None}
    if new_key:
        values = {**values, "host_key": ""}  # pinned anew, against the fingerprint given
    if other_driver:
        values = {**values, "driver": spec.driver}
    c.execute(sa.update(_T).where(_T.c.id == before.id).values(version=_T.c.version + 1, **values))
    return {}


def retire(c: sa.Connection, principal: Principal, body: Mapping[str, Any]) -> list[Draft]:
    """Disable hosts, so that nothing more is placed there, to be taken out. Raise Conflict while they hold any."""
    check_keys(body, ("hosts", "force"))
    wanted = hosts.records(c, names(body, "hosts"))
    running = unfinished(c, [f"host/{h.id}" for h in wanted])
    drafts: list[Draft] = []
    for host in wanted:
        require(principal, Verb.RETIRE, None, f"host/{host.name}")
        subject = f"host/{host.id}"
        if subject in running:
            raise busy(running[subject][0])
        held = instances_on.names_on(c, host.id)
        if held and not body.get("force"):
            raise Conflict(
                f"host {host.name} holds {len(held)} instances", f"host/{host.name}", {"instances": held},
                f"rackflow host evacuate {host.name} moves them away, rackflow host retire {host.name} --force gives "
                "them up",
            )  # fmt: skip
        c.execute(
            sa.update(_T).where(_T.c.id == host.id)
            .values(state=HostState.DISABLED, version=_T.c.version + 1, updated_at=now())
        )  # fmt: skip
        drafts.append(Draft(subject, host.name, {"force": bool(body.get("force"))}))
    return drafts


def configure(c: sa.Connection, principal: Principal, body: Mapping[str, Any]) -> list[Draft]:
    """Let hosts be configured over SSH, whatever their state. Raise NotFound, Denied, Conflict, Unsupported."""
    check_keys(body, ("hosts",))
    wanted = hosts.records(c, names(body, "hosts"))
    running = unfinished(c, [f"host/{h.id}" for h in wanted])
    for host in wanted:
        require(principal, Verb.CONFIGURE, None, f"host/{host.name}")
        require_configurable(host)
        if f"host/{host.id}" in running:
            raise busy(running[f"host/{host.id}"][0])
    return [Draft(f"host/{host.id}", host.name) for host in wanted]


def require_configurable(host: HostRecord) -> str:
    """Return the kind of a host that is configured over SSH. Raise Unsupported for others, Conflict without a key."""
    kind = host.driver or str(host.spec.get("driver") or "")
    if kind not in CONFIGURED:
        raise Unsupported(
            f"host {host.name} is of kind {kind or 'not known'}: {' and '.join(CONFIGURED)} are configured over SSH",
            f"host/{host.name}", {"kind": kind}, "enroll it with driver: kvm or lxd",
        )  # fmt: skip
    if not host.host_key:
        raise Conflict(
            f"no host key is pinned for host {host.name}", f"host/{host.name}", {"state": host.state},
            "enroll it first: that pins its key, also where packages are missing",
        )  # fmt: skip
    return kind


def reconcile(c: sa.Connection, principal: Principal, body: Mapping[str, Any]) -> list[Draft]:
    """Look at hosts; a look that is under way already is the answer. Raise Denied, NotFound."""
    check_keys(body, ("hosts",))
    require(principal, Verb.RECONCILE, None, "the cloud")
    named = names(body, "hosts", required=False)
    if named:
        hosts.records(c, named)
    running = unfinished(c, [CLOUD]).get(CLOUD, [])
    return [Draft(CLOUD, "reconcile", {"hosts": named}, existing=running[0] if running else None)]
