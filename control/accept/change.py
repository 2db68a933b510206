"""Change instances that exist: one acceptor for every verb of the lifecycle table but deploy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from blueprints.change import PARAMETERS
from blueprints.common import read_spec
from blueprints.instance import PRIORITY
from control import sql, tables
from control.accept.draft import Draft, busy, instead, names, unfinished
from control.accept.prepare import PREPARE
from control.access import Principal, require, sees_all
from control.ledger import Operation
from control.lifecycle import VERBS, WORDS, check_allowed, meant
from control.superseding import supersede
from core.errors import Invalid, Unsupported, no_such
from core.states import InstanceState, Verb

_T = tables.instance
Accept = Callable[[sa.Connection, Principal, Mapping[str, Any]], list[Draft]]


def acceptor(verb: Verb) -> Accept:
    """Return the acceptor of a verb, or of the word that means it in some states (start, resume, migrate)."""

    def accept(c: sa.Connection, principal: Principal, body: Mapping[str, Any]) -> list[Draft]:
        wanted = names(body, "instances")
        parameters = read_parameters(verb, {key: value for key, value in body.items() if key != "instances"})
        rows = _targets(c, principal, wanted)
        for row in rows:
            require(principal, verb, row["owner"], f"instance/{row['name']}")
        running = unfinished(c, [f"instance/{row['id']}" for row in rows])
        if verb is Verb.DELETE:
            drafts = _delete(c, principal, rows, running, parameters)
        else:
            drafts = [_draft(c, principal, verb, row, running, parameters) for row in rows]
        supersede(c, rows)
        return drafts

    return accept


def read_parameters(verb: Verb, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was given, checked, as it is kept. Raise Invalid: no verb of instances, or with every wrong field."""
    if verb not in PARAMETERS:
        raise Invalid(f"{verb} is not a verb of instances", "request", {"verbs": [str(known) for known in PARAMETERS]})
    found, wrong = read_spec(PARAMETERS[verb], dict(given), "request")
    if found is None:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        wrong = [{**one, "field": one["field"].removeprefix("request").removeprefix(".")} for one in wrong]
        message = ": ".join(part for part in (wrong[0]["field"], wrong[0]["message"]) if part)
        raise Invalid(f"{message}{more}", "request", {"errors": wrong})
    return found.model_dump(mode="json", exclude_unset=True)


def _targets(c: sa.Connection, principal: Principal, wanted: Sequence[str]) -> list[sa.RowMapping]:
    """Lock and return live instances by name or id, in the order asked for. Raise NotFound naming all that are not."""
    h = tables.host

    def build(part: list[Any]) -> sa.Select[Any]:
        return (
            sa.select(_T, h.c.name.label("host"), h.c.capabilities, h.c.driver)
            .select_from(_T.outerjoin(h, h.c.id == _T.c.host_id))
            .where(sa.or_(_T.c.live_name.in_(part), _T.c.id.in_(part)), _T.c.live_name.is_not(None))
            .order_by(_T.c.id).with_for_update(of=_T)
        )  # fmt: skip

    found: dict[str, sa.RowMapping] = {}
    for row in sql.fetch_in(c, wanted, build):
        if sees_all(principal) or row["owner"] == principal.name:
            found[row["id"]] = found[row["name"]] = row
    missing = [one for one in wanted if one not in found]
    if missing:
        raise no_such("instance", *missing)
    return list({found[one]["id"]: found[one] for one in wanted}.values())


def _draft(
    c: sa.Connection, principal: Principal, word: Verb, row: sa.RowMapping, running: Mapping[str, list[Operation]],
    parameters: Mapping[str, Any],
) -> Draft:  # fmt: skip
    subject, state = f"instance/{row['id']}", InstanceState(row["state"])
    if subject in running:
        raise busy(running[subject][0])
    verb = meant(word, state, row["name"]) if word in WORDS else word
    check_allowed(verb, state, row["name"])
    check_disks(verb, row)
    given = {**parameters, "was": state}
    if verb in PREPARE:
        verb, given = PREPARE[verb](c, principal, verb, row, given)
    check_able(verb, row)
    priority = row["spec"].get("priority", PRIORITY) if verb in _PLACED else PRIORITY
    return Draft(subject, row["name"], given, epoch=row["epoch"], verb=verb, priority=priority)


def check_disks(verb: Verb, row: Mapping[Any, Any]) -> None:
    """Raise Unsupported for a verb on our own disks, when the instance was adopted with its own."""
    if row["host_name"] and verb in _ON_OUR_DISKS:
        raise Unsupported(
            f"{verb} is not possible for {row['name']}: it was adopted, and its disks are not in our datastores",
            f"instance/{row['name']}", {"verb": verb, "name_on_host": row["host_name"]},
            f"save its disk as an image (rackflow instance save-image {row['name']}) and deploy from that",
        )  # fmt: skip


def check_able(verb: Verb, row: Mapping[Any, Any]) -> None:
    """Raise Unsupported when the host's driver says that it cannot do this."""
    needs = VERBS[verb].needs
    if not needs or row["capabilities"] is None or row["capabilities"].get(needs) is not False:
        return
    why = row["capabilities"].get("why_not", {}).get(needs)
    raise Unsupported(
        f"{verb} is not possible for {row['kind']} {row['name']}: {row['driver']} on {row['host']} cannot {needs}"
        + (f" ({why})" if why else ""),
        f"instance/{row['name']}", {"host": row["host"], "driver": row["driver"], "needs": needs},
        _INSTEAD.get(verb, ""),
    )  # fmt: skip


# Verbs that work on files in the instance's own folder of a datastore; an adopted one has none.
_ON_OUR_DISKS = frozenset({
    Verb.STOP, Verb.RESTORE, Verb.UNDEPLOY, Verb.REDEPLOY, Verb.MIGRATE, Verb.MIGRATE_LIVE, Verb.ATTACH_DISK,
    Verb.DETACH_DISK, Verb.GROW_DISK, Verb.REVERT_BACKUP, Verb.FAILOVER,
})  # fmt: skip
_PLACED = (Verb.RESTORE, Verb.REDEPLOY)
_INSTEAD = {
    Verb.STOP: "rackflow instance undeploy frees the host too, without saving memory",
    Verb.MIGRATE_LIVE: "migrate it with --cold: it is shut down for the way",
}


def _delete(
    c: sa.Connection, principal: Principal, rows: Sequence[sa.RowMapping], running: Mapping[str, list[Operation]],
    parameters: Mapping[str, Any],
) -> list[Draft]:  # fmt: skip
    """Cancel what is under way; a delete that is under way already is the answer."""
    deletes, still = instead(c, running, Verb.DELETE, f"cancelled: {principal.name} deletes the instance")
    drafts: list[Draft] = []
    for row in rows:
        subject = f"instance/{row['id']}"
        before = still.get(subject, [])
        drafts.append(Draft(
            subject, row["name"], {**parameters, "was": row["state"]}, epoch=row["epoch"],
            existing=deletes.get(subject), after_id=before[-1].id if before else None, waits_for_subject=bool(before),
        ))  # fmt: skip
    return drafts
