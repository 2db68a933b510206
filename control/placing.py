"""Place: decisions, reservations and leases for a batch, in one transaction, guarded by each host's version.

Two processes may place at once. Who finds that a chosen host has changed since it was looked at has lost that host, and
only those instances are placed again. Addresses are safe by a lock on their networks, and by a unique index.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import sqlalchemy as sa

from blueprints.instance import InstanceSpec
from control import decisions, drift, images, leases, placing_asleep, rounds, sql, tables
from control.accept.deploy import check_root, disk_mib
from control.hardware_offered import Grant
from control.images import ImageRecord
from control.leases import Held
from control.ledger import Operation, Stale, stale_among
from control.lifecycle import VERBS
from control.placement import engine
from control.placement.look import could_ever
from control.placement.model import Choice, Request, Shape
from control.placement.weights import DEFAULT
from control.placing_gangs import all_refused, held_back, key_of, mates, never_whole
from control.placing_hardware import grant
from control.placing_learned import Features
from control.placing_lives import expected_s, template_of
from control.placing_view import Cloud, shape_of
from core.clock import now
from core.errors import Busy, Conflict, NoCapacityNow, NoFit, RackflowError
from core.garbage import uncollected
from core.states import Verb

_T = tables.instance
_NONE: frozenset[int] = frozenset()
_NOWHERE: frozenset[str] = frozenset()
ROUNDS = 5  # of losing a host to another process
_TOLD = 20  # hosts in an error's evidence; the decision record has all


class Outcome(NamedTuple):
    """Where an operation's instance is placed, or why nowhere: NoFit, NoCapacityNow, Busy, Stale or what is wrong."""

    operation_id: str
    instance_id: str
    host: str | None
    error: RackflowError | None


class _Wanted(NamedTuple):
    """One instance to be placed. spec: as to its NICs that need an address; its name is that of one alike."""

    op: Operation
    instance_id: str
    request: Request
    disk_mib: int
    spec: InstanceSpec


class _Row(NamedTuple):
    """An instance as it stands. spec: as text; host: by name, None: it has none yet."""

    id: str
    name: str
    kind: str
    spec: str
    image_id: str
    owner: str
    blueprint: str
    host: str | None


_ROWS = (
    sa.select(
        _T.c.id, _T.c.name, _T.c.kind, sa.cast(_T.c.spec, sa.Text), _T.c.image_id, _T.c.owner, _T.c.blueprint,
        tables.host.c.name,
    ).select_from(_T.outerjoin(tables.host, tables.host.c.id == _T.c.host_id))
    .where(sql.among(_T.c.id), _T.c.live_name.is_not(None))
)  # fmt: skip
_VERSIONS = (
    sa.select(tables.host.c.id, tables.host.c.version).where(sql.among(tables.host.c.id)).order_by(tables.host.c.id)
    .with_for_update()
)  # fmt: skip
_CHANGED = sa.update(tables.host).where(sql.among(tables.host.c.id)).values(version=tables.host.c.version + 1)


@uncollected()
def place(
    c: sa.Connection, ops: Sequence[Operation], features: Mapping[str, Any] | None = None, policy: str = DEFAULT, *,
    looked: bool = False,
) -> list[Outcome]:  # fmt: skip
    """Choose hosts for the instances of deploy operations and write it all down; one outcome each, in their order.

    features: measured figures by host, with their version. looked: as in `steps.begin_steps`. An instance that is
    placed already stays where it is.
    """
    outcomes, wanted, known = _wanted(c, ops, features or {}, frozenset() if looked else stale_among(c, ops))
    held = held_back(c, [one.op for one in wanted if one.request.gang])
    for one in wanted if held else ():
        if one.op.id in held:
            outcomes[one.op.id] = Outcome(one.op.id, one.instance_id, None, held[one.op.id])
    wanted = [one for one in wanted if one.op.id not in held] if held else wanted
    version = int((features or {}).get("version") or 0)
    for _ in range(ROUNDS):
        if not wanted:
            break
        requests = [one.request for one in wanted]
        shapes = set({id(one.shape): one.shape for one in requests}.values())  # to hash each takes its time
        owners = {one.owner for one in requests}
        cloud = Cloud(c, shapes, lock=True, features=features, owners=owners)
        choices = engine.choose(cloud.view, requests, features, policy=policy)
        rounds.record(c, cloud.view, requests, features, policy, choices)
        lost_hosts = changed(c, cloud, {cloud.ids[ch.host] for ch in choices if ch.host is not None})
        won, lost = list(zip(wanted, choices, strict=True)), list[_Wanted]()
        if lost_hosts:
            gone = {one.op.id for one, ch in won if ch.host is not None and cloud.ids[ch.host] in lost_hosts}
            gone = mates({one.op.id: one.request.gang for one in wanted}, gone)
            lost = [one for one in wanted if one.op.id in gone]
            won = [pair for pair in won if pair[0].op.id not in gone]
        wanted = lost + _write(c, cloud, won, known, version, outcomes)
        if placing_asleep.on_call(cloud):
            _tell_of_sleepers(c, cloud, requests, outcomes, features, policy)
    for one in wanted:
        error = Busy(f"{one.request.name}: other placements were faster, {ROUNDS} times", one.op.subject)
        outcomes[one.op.id] = Outcome(one.op.id, one.instance_id, None, error)
    return [outcomes[op.id] for op in ops]


def _tell_of_sleepers(
    c: sa.Connection, cloud: Cloud, requests: Sequence[Request], outcomes: dict[str, Outcome],
    features: Features | None, policy: str,
) -> None:  # fmt: skip
    """Let what was refused say which host is woken for it."""
    errors = {one.key: found.error for one in requests if (found := outcomes.get(one.key)) and found.error}
    for key, error in placing_asleep.told(c, cloud, requests, errors, features, policy).items():
        outcomes[key] = outcomes[key]._replace(error=error)


def _wanted(
    c: sa.Connection, ops: Sequence[Operation], features: Features, lost: Collection[str]
) -> tuple[dict[str, Outcome], list[_Wanted], dict[str, dict[int, Held]]]:
    """Return the outcomes that are clear already, what there is to place, and the leases that it has.

    lost: ids of the operations that are another's by now.
    """
    ids = [op.subject_id for op in ops]
    rows = {row.id: row for row in map(_Row._make, sql.tuples_among(c, ids, _ROWS))}
    contents = images.records(c, {row.image_id for row in rows.values()})
    held = leases.held(c, list(rows))
    owing = drift.owing(c, [op.subject for op in ops])
    clear: dict[str, Outcome] = {}
    wanted: list[_Wanted] = []
    known: dict[Hashable, _Alike] = {}
    for op, subject_id in zip(ops, ids, strict=True):
        row = rows.get(subject_id)
        found: _Wanted | Outcome
        if op.id in lost:
            error = Stale("it was taken over or is finished", f"operation/{op.id}", {"operations": [op.id]})
            found = Outcome(op.id, subject_id, None, error)
        elif row is None:
            gone = Conflict(f"instance {op.subject_name} is deleted", op.subject)
            found = Outcome(op.id, subject_id, None, gone)
        elif row.host is not None:
            found = Outcome(op.id, row.id, row.host, None)
        else:
            kept = leases.staying(held[row.id]) if row.id in held else _NONE
            found = _request(op, row, contents[row.image_id], kept, owing, features, known)
        if isinstance(found, Outcome):
            clear[op.id] = found
        else:
            wanted.append(found)
    return clear, wanted, held


@dataclass(frozen=True)
class _Alike:
    """What instances have in common whose specs differ in no more than the name: worked out once for all of them."""

    shape: Shape
    disk_mib: int
    spec: InstanceSpec


def _request(
    op: Operation, row: _Row, image: ImageRecord, kept: frozenset[int], owing: Mapping[str, set[str]],
    features: Features, known: dict[Hashable, _Alike],
) -> _Wanted | Outcome:  # fmt: skip
    """Return what is wanted. owing: hosts where something of an instance is left, by subject: it goes there later."""
    failed, left = op.parameters.get("avoid"), owing.get(op.subject)
    avoid = frozenset((*(failed or ()), *(left or ()))) if failed or left else _NOWHERE
    saved = op.verb is Verb.RESTORE  # with its memory, which not all hosts can go on from
    key = _nameless(row.spec, row.name), row.kind, image.id, kept, avoid, row.blueprint, row.owner, saved
    if key not in known:
        spec = InstanceSpec.model_validate_json(row.spec)
        template = template_of(row.blueprint, spec.image)
        try:
            check_root(spec, image)
        except RackflowError as error:
            return Outcome(op.id, row.id, None, error)
        size = disk_mib(spec, image)
        lives_s = expected_s(features, template, row.owner, spec.cpu, spec.memory_mib)
        shape = shape_of(spec, row.kind, size, image, avoid, kept, lifetime_s=lives_s)
        if saved:
            shape = replace(shape, capabilities=shape.capabilities | {VERBS[Verb.STOP].needs})
        known[key] = _Alike(shape, size, leases.undrawn(spec, kept))
    alike = known[key]
    request = Request(op.id, row.name, alike.shape, row.owner, alike.spec.priority, key_of(op))
    return _Wanted(op, row.id, request, alike.disk_mib, alike.spec)


def _nameless(spec: str, name: str) -> str:
    """Return the JSON text of a spec without its name: what those have in common that were made alike."""
    begins = f'{{"name":"{name}",'  # as our own JSON does, which every database keeps
    return spec[len(begins) :] if spec.startswith(begins) else spec


def changed(c: sa.Connection, cloud: Cloud, host_ids: set[str]) -> set[str]:
    """Lock the chosen hosts; return those that changed since they were looked at, and mark the others as changed."""
    rows = sql.tuples_among(c, sorted(host_ids), _VERSIONS)
    same = [row_id for row_id, version in rows if version == cloud.versions[row_id]]
    sql.run_among(c, same, _CHANGED)
    return host_ids - set(same)


def _write(
    c: sa.Connection, cloud: Cloud, won: Sequence[tuple[_Wanted, Choice]], known: Mapping[str, Mapping[int, Held]],
    version: int, outcomes: dict[str, Outcome],
) -> list[_Wanted]:  # fmt: skip
    """Write decisions, reservations and leases; return those for whom an address or a device was not left after all."""
    placed = [(one, choice, choice.host) for one, choice in won if choice.host is not None]
    given, short = leases.draw(cloud, [(one.instance_id, one.spec, h) for one, _, h in placed])
    granted: dict[str, Grant] = {}
    if cloud.hardware:
        granted, unfit = grant(cloud.hardware, [(one.instance_id, one.request.shape, h) for one, _, h in placed])
        short |= unfit
    lost: list[_Wanted] = []
    if short:
        without = {one.op.id for one, _ in won if one.instance_id in short}
        without = mates({one.op.id: one.request.gang for one, _ in won}, without)
        short = {one.instance_id for one, _ in won if one.op.id in without}
        given = [one for one in given if one.instance_id not in short]
        lost = [one for one, _ in won if one.instance_id in short]
        won = [pair for pair in won if pair[0].instance_id not in short]
        placed = [one for one in placed if one[0].instance_id not in short]
    at = now()
    sql.update_columns(c, _T, {
        "id": [one.instance_id for one, _, _ in placed], "host_id": [cloud.ids[h] for _, _, h in placed],
        "datastore_id": [cloud.stores.get(choice.datastore or "") for _, choice, _ in placed],
        "disk_mib": [one.disk_mib for one, _, _ in placed], "updated_at": [at] * len(placed),
        **({"granted": [granted.get(one.instance_id) for one, _, _ in placed]} if granted else {}),
    })  # fmt: skip
    leases.write(c, given, at, known)
    decided = [(choice, one.op.id, one.instance_id) for one, choice in won]
    ids = decisions.record(c, decided, cloud.view.names, version)
    for one, _, h in placed:
        outcomes[one.op.id] = Outcome(one.op.id, one.instance_id, cloud.view.names[h], None)
    possible: dict[Shape, bool] = {}
    refused = {one.op.id: (one, choice) for one, choice in won if choice.host is None}
    errors = {
        op_id: refusal(cloud, one.request, choice, possible, one.op.parameters, ids[op_id])
        for op_id, (one, choice) in refused.items()
    }
    errors = never_whole(cloud.view, [one.request for one, _ in refused.values()], errors)
    for op_id, error in all_refused({one: refused[one][0].request.gang for one in refused}, errors).items():
        outcomes[op_id] = Outcome(op_id, refused[op_id][0].instance_id, None, error)
    return lost


def refusal(
    cloud: Cloud, request: Request, choice: Choice, possible: dict[Shape, bool], parameters: Mapping[str, Any],
    decision: str | None,
) -> RackflowError:  # fmt: skip
    """Return NoCapacityNow when it could fit this cloud at another time, else NoFit; with what would help."""
    shape, record = request.shape, choice.record
    if shape not in possible:
        possible[shape] = could_ever(cloud.view, shape)
    change = record.get("change")
    evidence = {"hosts": record["hosts"][:_TOLD], "change": change, "decision": decision}
    fix = change["text"] if change else ""
    subject = f"instance/{request.name}"
    if possible[shape]:
        return NoCapacityNow(f"no host has room for {request.name} now: {record['summary']}", subject, evidence, fix)
    if shape.avoid and could_ever(cloud.view, replace(shape, avoid=frozenset())):
        failed = (parameters.get("avoid_error") or {}).get("message", "it failed there")
        tried = ", ".join(sorted(shape.avoid))
        return NoFit(f"no host is left for {request.name}: on {tried}: {failed}", subject, evidence, fix)
    return NoFit(f"no host of this cloud can hold {request.name}: {record['summary']}", subject, evidence, fix)
