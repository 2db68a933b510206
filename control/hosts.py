"""Hosts as the record has them: how to reach them, what they may hold, in which state they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from control import host_facts, instances_on, outbox, reach, sql, tables
from control.access import Principal, require_admin
from control.ledger import Operation, guard
from control.placing_hardware import grants_on, hardware_shown
from control.waiting import wake
from core.clock import now, rfc3339
from core.errors import Conflict, RackflowError, no_such
from core.states import RESTING, UNFINISHED, HostState, InstanceKind, Verb

_T = tables.host
_CLUSTER = tables.cluster
_LONGEST_REST_S = 600
KINDS: dict[str, tuple[InstanceKind, ...]] = {  # what a driver runs, where its capabilities do not say it
    "kvm": (InstanceKind.VM,),
    "lxd": (InstanceKind.CONTAINER,),
    "firecracker": (InstanceKind.VM,),
    "esxi": (InstanceKind.VM,),
    "fake": (InstanceKind.VM, InstanceKind.CONTAINER),
}


# What somebody has decided, or is about to: an observation is noted, but does not change it.
_KEPT = (
    HostState.DISABLED, HostState.ENROLLING, HostState.DRAINING, HostState.MAINTENANCE, HostState.FENCED,
    *RESTING,
)  # fmt: skip


@dataclass(frozen=True)
class HostRecord:
    """A host. driver "" and cpus 0: not enrolled yet; overcommit None: the cluster's holds. error: why not ready."""

    id: str
    name: str
    driver: str
    address: str
    port: int
    user: str
    key_file: str
    host_key: str
    state: HostState
    cluster: str
    cluster_id: str
    cpus: float
    memory_mib: int
    cpu_overcommit: float | None
    cpu_learned_max: float | None
    memory_overcommit: float | None
    labels: dict[str, str]
    spec: dict[str, Any]
    facts: dict[str, Any]
    capabilities: dict[str, Any]
    hardware: dict[str, Any] | None
    power: dict[str, Any] | None
    version: int
    seen_at: datetime | None
    error: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime

    @property
    def place(self) -> str:
        """Return which of a server's hosts is meant, "" where it has one."""
        return str(self.spec.get("place") or "")

    @property
    def kinds(self) -> tuple[InstanceKind, ...]:
        """Return which kinds of instance run here."""
        said = self.capabilities.get("kinds")
        return tuple(InstanceKind(kind) for kind in said) if said else KINDS.get(self.driver, ())


_ALL = sa.select(_T, _CLUSTER.c.name.label("cluster")).where(_T.c.cluster_id == _CLUSTER.c.id).order_by(_T.c.id)
_LIVE = _ALL.where(_T.c.live_name.is_not(None))
_BY_NAME = _ALL.where(sql.among(_T.c.live_name))
_BY_ID = _ALL.where(sql.among(_T.c.id))


def record_of(row: Mapping[Any, Any]) -> HostRecord:
    """Return the record for a row of host with its cluster's name."""
    values = {name: row[name] for name in HostRecord.__dataclass_fields__}
    values.update(state=HostState(row["state"]))
    return HostRecord(**values)


def records(c: sa.Connection, names: Collection[str] | None = None) -> list[HostRecord]:
    """Return live hosts, oldest first; all, or those named. Raise NotFound."""
    if names is None:
        return [record_of(row) for row in c.execute(_LIVE).mappings()]
    rows = sql.fetch_among(c, set(names), _BY_NAME)
    missing = sorted(set(names) - {row["name"] for row in rows})
    if missing:
        raise no_such("host", *missing)
    return [record_of(row) for row in rows]


def by_id(c: sa.Connection, ids: Collection[str]) -> dict[str, HostRecord]:
    """Return id -> host, retired ones too."""
    return {row["id"]: record_of(row) for row in sql.fetch_among(c, set(ids), _BY_ID)}


def get(c: sa.Connection, name_or_id: str) -> HostRecord:
    """Return one live host by name, or any by id. Raise NotFound."""
    row = c.execute(_ALL.where(sa.or_(_T.c.live_name == name_or_id, _T.c.id == name_or_id))).mappings().first()
    if row is None:
        raise no_such("host", name_or_id)
    return record_of(row)


def targets(c: sa.Connection, kind: str, names: Sequence[str]) -> list[tuple[HostRecord, tuple[str, str]]]:
    """Return the hosts, ready and fit for a kind of image, with the datastore (id, path) that a copy goes to.

    names: only these, whatever their state; empty: all. The datastore is the first that was seen there.
    """
    d, dh = tables.datastore, tables.datastore_host
    wanted = [h for h in records(c, names or None) if kind in h.kinds and (bool(names) or h.state is HostState.READY)]
    rows = sql.fetch_in(
        c, [h.id for h in wanted],
        lambda part: sa.select(dh.c.host_id, d.c.id, d.c.path, d.c.name)
        .where(dh.c.datastore_id == d.c.id, dh.c.host_id.in_(part)).order_by(d.c.created_at, d.c.id),
    )  # fmt: skip
    first: dict[str, tuple[str, str]] = {}
    for row in rows:
        first.setdefault(row["host_id"], (row["id"], row["path"]))
    return [(h, first[h.id]) for h in wanted if h.id in first]


def pin_key(c: sa.Connection, op: Operation, host_id: str, host_key: str) -> None:
    """Pin a host's SSH key. Raise Stale."""
    guard(c, [op])
    _change(c, host_id, host_key=host_key)


def record_enrolled(
    c: sa.Connection, op: Operation, host_id: str, *, driver: str, host_key: str, facts: dict[str, Any],
    capabilities: dict[str, Any], cpus: float, memory_mib: int,
) -> None:  # fmt: skip
    """Write what enrollment found: the host is ready, unless it is kept out of use. Raise Stale.

    Declared capacity wins. One that was fenced stays so: what is left there has to be cleared first.
    """
    guard(c, [op])
    host = get(c, host_id)
    state = host.state if host.state in _KEPT and host.state is not HostState.ENROLLING else HostState.READY
    _change(
        c, host_id, driver=driver, host_key=host_key, capabilities=capabilities, error=None, state=state,
        **host_facts.columns(host.spec, host.facts, facts, grants_on(c, host_id)),
        cpus=float(host.spec.get("cpus") or cpus), memory_mib=int(host.spec.get("memory_mib") or memory_mib),
    )  # fmt: skip
    tell(c, host, state)
    wake(c)


def record_moved(c: sa.Connection, op: Operation, host_id: str, values: Mapping[str, Any]) -> None:
    """Write another address or key of a machine that was found to be the same. Raise Stale."""
    guard(c, [op])
    _change(c, host_id, **values)


def record_fenced(c: sa.Connection, op: Operation, host_id: str, error: Mapping[str, Any]) -> None:
    """Write that a host is off for certain. error: how that is known, and what to do next. Raise Stale."""
    guard(c, [op])
    host = get(c, host_id)
    _change(c, host_id, state=HostState.FENCED, error=dict(error))
    tell(c, host, HostState.FENCED, error)


def note_error(c: sa.Connection, host_id: str, error: Mapping[str, Any]) -> None:
    """Say otherwise why a host is not ready; its state stays."""
    c.execute(sa.update(_T).where(_T.c.id == host_id).values(error=dict(error)))


def record_failed(c: sa.Connection, op: Operation, host_id: str, error: RackflowError) -> None:
    """Write why a host could not be enrolled. Raise Stale."""
    guard(c, [op])
    set_failed(c, host_id, error.to_dict())


def set_failed(c: sa.Connection, host_id: str, error: Mapping[str, Any] | None) -> None:
    """Mark a host that was being enrolled as faulty; deploys that hoped for it are looked at again."""
    host = get(c, host_id)
    if host.state is HostState.ENROLLING:
        _change(c, host_id, state=HostState.FAULTY, error=dict(error) if error else None)
        tell(c, host, HostState.FAULTY)
        wake(c)


def set_state(
    c: sa.Connection, host_id: str, state: HostState, error: RackflowError | None = None, *, entered: bool = False
) -> bool:
    """Give a host a state; return whether it changed. Raise Conflict.

    UNREACHABLE and FAULTY are observations, unless entered by somebody: they are noted, but what is disabled, drained
    or fenced, or in maintenance stays so. READY enables.
    RETIRED frees its name and forgets what is on it.
    """
    host = get(c, host_id)
    said = error.to_dict() if error else None
    if host.state is HostState.RETIRED:
        return False
    if state is HostState.RETIRED:
        return _retire(c, host)
    observed = state in (HostState.UNREACHABLE, HostState.FAULTY)
    if observed and not entered and host.state in RESTING:  # a look that was late: it is expected to be silent
        return False
    if state is HostState.READY and host.cpus <= 0:
        raise Conflict(f"host {host.name} is not enrolled", f"host/{host.name}", {"state": host.state}, "enroll it")
    if observed and not entered and host.state in _KEPT:
        state = host.state
    if (state, said) == (host.state, host.error):
        return False
    _change(c, host_id, state=state, error=said)
    if state is not host.state:
        tell(c, host, state, said)
        wake(c)
    return state is not host.state


def note_trouble(c: sa.Connection, name: str) -> None:
    """Count a step that failed because of its host: nothing is placed there for a while, longer each time."""
    row = c.execute(sa.select(_T.c.id, _T.c.failures).where(_T.c.live_name == name).with_for_update()).first()
    if row is not None:
        rest_s = min(_LONGEST_REST_S, 10 * 2 ** min(row.failures, 10))
        values = {"failures": row.failures + 1, "retry_at": sql.db_now(c) + timedelta(seconds=rest_s)}
        c.execute(sa.update(_T).where(_T.c.id == row.id).values(version=_T.c.version + 1, **values))


def note_well(c: sa.Connection, name: str) -> None:
    """Forget a host's failures: a step went well there."""
    c.execute(
        sa.update(_T).where(_T.c.live_name == name, _T.c.failures > 0)
        .values(failures=0, retry_at=None, version=_T.c.version + 1)
    )  # fmt: skip
    wake(c)


def enable(c: sa.Connection, principal: Principal, name: str) -> bool:
    """Let a host take placements again; return whether that changed anything. Raise Denied, NotFound, Conflict.

    One that was fenced is ready when it has answered and what is left there of instances that run elsewhere was taken
    away: the next look does that, in this order.
    """
    require_admin(principal, "enable hosts")
    host = get(c, name)
    _require_awake(host)
    if host.state is not HostState.FENCED:
        return set_state(c, host.id, HostState.READY)
    _require_failed_over(c, host)
    return set_state(c, host.id, HostState.UNREACHABLE, entered=True)


def disable(c: sa.Connection, principal: Principal, name: str) -> bool:
    """Place nothing more on a host; what runs there goes on. Raise Denied, NotFound, Conflict."""
    require_admin(principal, "disable hosts")
    return _decide(c, get(c, name), HostState.DISABLED)


def maintain(c: sa.Connection, principal: Principal, name: str) -> bool:
    """Let an administrator work on a host: no placements, no repairs, no alarm until it is enabled. Raise Conflict."""
    require_admin(principal, "take hosts into maintenance")
    return _decide(c, get(c, name), HostState.MAINTENANCE)


def _require_awake(host: HostRecord) -> None:
    if host.state in RESTING:
        raise Conflict(
            f"host {host.name} is {host.state}", f"host/{host.name}", {"state": host.state},
            f"rackflow host wake {host.name}",
        )  # fmt: skip


def _decide(c: sa.Connection, host: HostRecord, state: HostState) -> bool:
    _require_awake(host)
    if host.state is HostState.FENCED:
        raise Conflict(
            f"host {host.name} is fenced", f"host/{host.name}", {"state": host.state},
            f"power it on, then: rackflow host enable {host.name}",
        )  # fmt: skip
    return set_state(c, host.id, state)


def _require_failed_over(c: sa.Connection, host: HostRecord) -> None:
    """Raise Conflict while the host is being fenced, or its instances are on their way elsewhere."""
    op, i = tables.operation, tables.instance
    mine = sa.select(sa.literal("instance/") + i.c.id).where(i.c.host_id == host.id)
    leaving = sa.and_(op.c.verb == Verb.FAILOVER, op.c.subject.in_(mine))
    cutting = sa.and_(op.c.verb == Verb.FENCE, op.c.subject == f"host/{host.id}")
    found = c.execute(
        sa.select(op.c.id, op.c.verb, op.c.subject_name)
        .where(sa.or_(leaving, cutting), op.c.state.in_(UNFINISHED)).order_by(op.c.id).limit(1)
    ).first()  # fmt: skip
    if found is not None:
        raise Conflict(
            f"host {host.name}: {found.verb} of {found.subject_name} is under way", f"host/{host.name}",
            {"operation": found.id}, f"wait for it: rackflow operation show {found.id}",
        )  # fmt: skip


def _retire(c: sa.Connection, host: HostRecord) -> bool:
    instances_on.abandon(c, host.id, f"its host {host.name} was retired")
    reach.forget(c, host.id)
    _change(c, host.id, state=HostState.RETIRED, live_name=None, error=None)
    tell(c, host, HostState.RETIRED)
    wake(c)
    return True


def _change(c: sa.Connection, host_id: str, **values: Any) -> None:
    c.execute(sa.update(_T).where(_T.c.id == host_id).values(version=_T.c.version + 1, updated_at=now(), **values))


def tell(c: sa.Connection, host: HostRecord, state: HostState, error: Mapping[str, Any] | None = None) -> None:
    """Let the history and all who watch know that a host is in a state."""
    outbox.emit(
        c, "host", f"host/{host.id}",
        {"host": host.name, "from": host.state, "to": state, "driver": host.driver, "error": error},
    )  # fmt: skip


def list_(
    c: sa.Connection, principal: Principal, *, name: str | None = None, state: str | None = None,
    cluster: str | None = None, labels: Mapping[str, str] | None = None, limit: int | None = None,
    after: str | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return live hosts with what is reserved on them, oldest first. after: the id of the last one seen."""
    statement = _LIVE
    if name is not None:
        statement = statement.where(sa.or_(_T.c.live_name == name, _T.c.id == name))
    if state is not None:
        statement = statement.where(_T.c.state == state)
    if cluster is not None:
        statement = statement.where(_CLUSTER.c.name == cluster)
    if after is not None:
        statement = statement.where(_T.c.id > after)
    wanted = set((labels or {}).items())
    found = [h for row in c.execute(statement).mappings() if wanted <= set((h := record_of(row)).labels.items())]
    found = found[:limit]
    held = instances_on.reserved(c, [h.id for h in found])
    return [_view(h, held.get(h.id, instances_on.NOTHING)) for h in found]


def show(c: sa.Connection, principal: Principal, name_or_id: str) -> dict[str, Any]:
    """Return one live host with facts, capabilities, what it offers, datastores and networks. Raise NotFound."""
    host = get(c, name_or_id)
    found = list_(c, principal, name=host.id)
    if not found:
        raise no_such("host", name_or_id)
    return {**found[0], "hardware": hardware_shown(c, vars(host)), "spec": host.spec,
            "power": host.power or {}, "facts": host.facts,
            "capabilities": host.capabilities, **reach.of_host(c, host.id)}  # fmt: skip


def _view(host: HostRecord, held: instances_on.Reserved) -> dict[str, Any]:
    return {
        "id": host.id, "name": host.name, "state": host.state, "driver": host.driver or None,
        "address": host.address, "port": host.port, "user": host.user, "host_key": host.host_key or None,
        "cluster": host.cluster, "kinds": list(host.kinds), "cpus": host.cpus or None,
        "memory_mib": host.memory_mib or None, "cpu_reserved": held.cpu, "memory_reserved_mib": held.memory_mib,
        "instances": held.instances, "labels": host.labels, "error": host.error, "seen_at": rfc3339(host.seen_at),
        "created_at": rfc3339(host.created_at), "updated_at": rfc3339(host.updated_at),
    }  # fmt: skip
