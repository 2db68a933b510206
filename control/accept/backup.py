"""Test and delete backups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from control import backups, sql, tables
from control.accept.draft import Acceptor, Draft, busy, check_keys, names, unfinished
from control.access import Principal, require, sees_all
from core.errors import Conflict, NotFound
from core.states import Verb

_T, _I = tables.backup, tables.instance


def acceptor(verb: Verb) -> Acceptor:
    """Return the acceptor of a verb on backups, named by their ids."""

    def accept(c: sa.Connection, principal: Principal, body: Mapping[str, Any]) -> list[Draft]:
        check_keys(body, ("backups",))
        wanted = names(body, "backups")
        found = {row["id"]: row for row in sql.fetch_in(c, wanted, _select)}
        for one in wanted:
            if one not in found or not (sees_all(principal) or found[one]["owner"] == principal.name):
                raise NotFound(f"there is no backup {one}", f"backup/{one}", {}, "rackflow backup list shows them")
        running = unfinished(c, [f"backup/{one}" for one in wanted])
        return [_draft(c, principal, verb, found[one], running, set(wanted)) for one in wanted]

    return accept


def _select(part: list[Any]) -> sa.Select[Any]:
    return sa.select(_T, _I.c.name.label("instance"), _I.c.owner).where(_I.c.id == _T.c.instance_id, _T.c.id.in_(part))


def _draft(
    c: sa.Connection, principal: Principal, verb: Verb, row: sa.RowMapping, running: Mapping[str, Any], all_: set[str]
) -> Draft:
    subject = f"backup/{row['id']}"
    require(principal, verb, row["owner"], subject)
    if subject in running:
        raise busy(running[subject][0])
    if verb is Verb.TEST_BACKUP and row["state"] == backups.PENDING:
        raise Conflict(f"backup {row['name']} is not there yet", subject, {"state": row["state"]})
    needed = [] if verb is Verb.TEST_BACKUP else backups.needed_by(c, row["id"])
    going = {one.name for one in backups.of_instance(c, row["instance_id"]) if one.id in all_}
    if set(needed) - going:
        raise Conflict(
            f"backup {row['name']} of {row['instance']} is needed by {', '.join(needed)}", subject,
            {"needed_by": needed}, "delete those first, or together with it",
        )  # fmt: skip
    return Draft(subject, row["name"])
