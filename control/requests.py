"""The one door for requests, whoever asks: API, command line, Prefect's forms and schedules."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import sqlalchemy as sa

from blueprints.change import PARAMETERS
from blueprints.common import Spec
from blueprints.instance import InstanceSpec
from control import access, sql, tables
from control.accept import backup, change, deploy, host, host_change, host_power, image, machine, machine_change, plan
from control.accept.draft import Acceptor, Draft
from control.access import Principal, sees_all
from control.ledger import Operation, guard, operation_of
from control.operation_views import list_ as list_operations
from control.sql import LostRace
from core.clock import now, rfc3339
from core.errors import Conflict, NotFound, RackflowError
from core.ids import new_id
from core.states import OperationState, Verb

_T, _OP = tables.request, tables.operation
ACCEPTORS: dict[Verb, Acceptor] = {
    Verb.DEPLOY: deploy.accept,
    **{verb: change.acceptor(verb) for verb in PARAMETERS},
    Verb.TEST_BACKUP: backup.acceptor(Verb.TEST_BACKUP),
    Verb.DROP_BACKUP: backup.acceptor(Verb.DROP_BACKUP),
    Verb.ENROLL: host.enroll,
    Verb.RETIRE: host.retire,
    Verb.CONFIGURE: host.configure,
    Verb.EVACUATE: host_change.evacuate,
    Verb.FENCE: host_change.fence,
    Verb.ADOPT: host_change.adopt,
    Verb.SLEEP: host_power.sleep,
    Verb.WAKE: host_power.wake,
    Verb.ENROLL_MACHINE: machine.enroll,
    Verb.CHANGE_MACHINE: machine_change.change,
    Verb.RECONCILE: host.reconcile,
    Verb.APPLY_PLAN: plan.apply,
    Verb.IMPORT: image.import_,
    Verb.STAGE: image.stage,
    Verb.REMOVE: image.remove,
}


@dataclass(frozen=True)
class Accepted:
    """What a request led to. repeated: it had been made before, this is the answer given then."""

    request_id: str
    operations: list[Operation]
    repeated: bool


@dataclass(frozen=True)
class Ask:
    """One request, as `submit` takes it."""

    principal: Principal
    verb: Verb
    body: Mapping[str, Any]
    source: str
    idempotency_key: str | None = None


def submit(
    c: sa.Connection, principal: Principal, verb: Verb, body: Mapping[str, Any], *, source: str,
    idempotency_key: str | None = None,
) -> Accepted:  # fmt: skip
    """Enter a request into the ledger: all of it or nothing. source: api, cli, prefect, reconcile, …

    The same key with the same body gives the first answer again. Raise Invalid, NotFound, Denied, Conflict.
    """
    key = _key(principal, idempotency_key)
    digest = _digest(verb, body)
    if key is not None and (before := _earlier(c, key, digest)) is not None:
        return before
    try:
        drafts = ACCEPTORS[verb](c, principal, body)
    except RackflowError as error:
        if key is not None and _earlier(c, key, None) is not None:  # entered meanwhile: it clashes with itself
            raise LostRace from error
        raise
    known = [draft.existing for draft in drafts if draft.existing is not None]
    if len(known) == len(drafts):
        return Accepted(known[0].request_id, known, True)
    new = [draft for draft in drafts if draft.existing is None]
    ((request_id, entered),) = _enter(c, principal, verb, source, [(key, digest, new)])
    return Accepted(request_id, [*known, *entered], False)


def submit_all(c: sa.Connection, asks: Sequence[Ask]) -> list[Accepted | RackflowError]:
    """Enter requests that came at the same time, each all of it or nothing; the answers come in the same order.

    Those that ask for instances, and differ in nothing else, are looked at and written together: that takes as many
    statements as one of them. When that is refused each is looked at by itself, so that every one gets its own error.
    """
    alike: dict[Any, list[int]] = {}
    for n, ask in enumerate(asks):
        alike.setdefault(_likeness(ask) or n, []).append(n)
    found: dict[int, Accepted | RackflowError] = {}
    for places in alike.values():
        found.update(zip(places, _submit_alike(c, [asks[n] for n in places]), strict=True))
    return [found[n] for n in range(len(asks))]


def _likeness(ask: Ask) -> Any:
    """Return what requests have in common that may be entered together; None: this one goes alone."""
    specs = ask.body.get("instances")
    if ask.verb is not Verb.DEPLOY or ask.idempotency_key or not isinstance(specs, list) or not _count(ask):
        return None
    return ask.principal, ask.source, *((name, value) for name, value in sorted(ask.body.items()) if value is not specs)


def _count(ask: Ask) -> int:
    """Return how many instances specs make; 0 when they are to be read first."""
    specs = ask.body["instances"]
    if not all(isinstance(spec, InstanceSpec) for spec in specs):
        return 0
    return sum(1 if spec.count is None else spec.count for spec in specs)


def _submit_alike(c: sa.Connection, asks: Sequence[Ask]) -> list[Accepted | RackflowError]:
    try:
        with c.begin_nested():
            return [*(_together(c, asks) if asks[1:] else [_alone(c, asks[0])])]
    except RackflowError as error:
        return [one for ask in asks for one in _submit_alike(c, [ask])] if asks[1:] else [error]


def _alone(c: sa.Connection, ask: Ask) -> Accepted:
    return submit(c, ask.principal, ask.verb, ask.body, source=ask.source, idempotency_key=ask.idempotency_key)


def _together(c: sa.Connection, asks: Sequence[Ask]) -> list[Accepted]:
    """Enter requests that are alike as if they were one, but for their rows."""
    first = asks[0]
    body = {**first.body, "instances": [spec for ask in asks for spec in ask.body["instances"]]}
    drafts = iter(ACCEPTORS[first.verb](c, first.principal, body))
    parts = [(None, _digest(ask.verb, ask.body), list(islice(drafts, _count(ask)))) for ask in asks]
    return [
        Accepted(request_id, entered, False)
        for request_id, entered in _enter(c, first.principal, first.verb, first.source, parts)
    ]


def submit_for(
    c: sa.Connection, op: Operation, verb: Verb, body: Mapping[str, Any], *, source: str, key: str
) -> Operation:
    """Ask for a part of a larger operation, for whom that was asked by; once for each key (see control/children.py).

    Raise Stale, and what `submit` raises.
    """
    guard(c, [op])
    return submit(c, access.find(c, op.asked_by), verb, body, source=source, idempotency_key=key).operations[0]


def _key(principal: Principal, key: str | None) -> str | None:
    """Return the key as it is kept: an account's keys are its own; a long one is kept by its hash."""
    if not key:
        return None
    short = key if len(key) <= 200 else hashlib.sha256(key.encode()).hexdigest()
    return f"{principal.id}:{short}"


def _digest(verb: Verb, body: Mapping[str, Any]) -> str:
    def plain(value: Any) -> Any:
        return value.model_dump(mode="json") if isinstance(value, Spec) else str(value)

    text = json.dumps([verb, body], sort_keys=True, default=plain, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def earlier(c: sa.Connection, principal: Principal, idempotency_key: str | None) -> Accepted | None:
    """Return what was answered to the request that bore this key; None: there was none."""
    key = _key(principal, idempotency_key)
    return _earlier(c, key, None) if key is not None else None


def _earlier(c: sa.Connection, key: str, digest: str | None) -> Accepted | None:
    row = c.execute(sa.select(_T.c.id, _T.c.body_sha256).where(_T.c.idempotency_key == key)).one_or_none()
    if row is None:
        return None
    if digest is not None and row.body_sha256 != digest:
        raise Conflict(
            "this idempotency key was used for another request", f"request/{row.id}", {"request": row.id},
            "use a new key for a new request",
        )  # fmt: skip
    ops = c.execute(sa.select(_OP).where(_OP.c.request_id == row.id).order_by(_OP.c.id)).mappings()
    return Accepted(row.id, [operation_of(op) for op in ops], True)


def _enter(
    c: sa.Connection, principal: Principal, verb: Verb, source: str,
    parts: Sequence[tuple[str | None, str, Sequence[Draft]]],
) -> list[tuple[str, list[Operation]]]:  # fmt: skip
    """Write requests, each with its key, digest and operations; return the id and the operations of each."""
    at = now()
    requested: list[dict[str, Any]] = [
        {"id": new_id(), "user_id": principal.id, "source": source[:32], "idempotency_key": key, "body_sha256": digest,
         "created_at": at} for key, digest, _ in parts
    ]  # fmt: skip
    sql.insert(c, _T, requested)
    drafts = [(row["id"], draft) for row, (_, _, drafts) in zip(requested, parts, strict=True) for draft in drafts]
    ids = sorted(new_id() for _ in drafts)  # so that a later look finds them in the order asked for
    rows = [
        {
            "id": row_id, "request_id": request_id, "verb": draft.verb or verb, "subject": draft.subject,
            "subject_name": draft.subject_name, "open_subject": None if draft.waits_for_subject else draft.subject,
            "after_id": draft.after_id, "asked_by": principal.name, "parameters": draft.parameters,
            "state": OperationState.PENDING, "reason": "", "error": None, "epoch": draft.epoch, "claimed_by": None,
            "flow_run_id": None, "cancel_requested": False, "attempts": 0, "not_before": draft.not_before,
            "priority": draft.priority, "created_at": at, "started_at": None, "finished_at": None,
        }
        for row_id, (request_id, draft) in zip(ids, drafts, strict=True)
    ]  # fmt: skip
    sql.insert(c, _OP, rows)
    entered: dict[str, list[Operation]] = {row["id"]: [] for row in requested}
    for (request_id, _), row in zip(drafts, rows, strict=True):
        entered[request_id].append(operation_of(row))
    return list(entered.items())


def show(c: sa.Connection, principal: Principal, request_id: str, *, steps: bool = False) -> dict[str, Any]:
    """Return a request with its operations. Raise NotFound."""
    u = tables.user
    row = c.execute(
        sa.select(_T, u.c.name.label("asked_by")).where(_T.c.user_id == u.c.id, _T.c.id == request_id)
    ).mappings().one_or_none()  # fmt: skip
    if row is None or not (sees_all(principal) or row["user_id"] == principal.id):
        raise NotFound(f"there is no request {request_id}", f"request/{request_id}")
    return {
        "id": row["id"], "source": row["source"], "asked_by": row["asked_by"], "created_at": rfc3339(row["created_at"]),
        "operations": list_operations(c, principal, request=request_id, steps=steps),
    }  # fmt: skip


def list_(
    c: sa.Connection, principal: Principal, *, limit: int | None = 100, after: str | None = None
) -> list[dict[str, Any]]:
    """Return requests, newest first, with the number of their operations. after: the id of the last one seen."""
    u, count = tables.user, sa.func.count(_OP.c.id).label("operations")
    statement = (
        sa.select(_T.c.id, _T.c.source, _T.c.created_at, u.c.name.label("asked_by"), count)
        .select_from(_T.join(u, u.c.id == _T.c.user_id).outerjoin(_OP, _OP.c.request_id == _T.c.id))
        .group_by(_T.c.id, _T.c.source, _T.c.created_at, u.c.name).order_by(_T.c.id.desc()).limit(limit)
    )  # fmt: skip
    if not sees_all(principal):
        statement = statement.where(_T.c.user_id == principal.id)
    if after is not None:
        statement = statement.where(_T.c.id < after)
    return [{**row, "created_at": rfc3339(row["created_at"])} for row in c.execute(statement).mappings()]
