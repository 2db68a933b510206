"""Which instances may leave their host, and how: for a whole host or cloud in a few queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from control import snapshots, sql, tables
from control.accept.change import check_able, check_disks
from control.accept.prepare import migration
from control.lifecycle import VERBS, check_allowed
from core.errors import RackflowError
from core.states import InstanceState, Verb


@dataclass(frozen=True)
class Way:
    """How an instance may be moved. reason: why it cannot; live None: it does not run."""

    reason: str = ""
    live: bool | None = None


def ways(
    c: sa.Connection, rows: Sequence[Mapping[Any, Any]], *, live: bool | None = None,
    bound: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Way]:  # fmt: skip
    """Return instance id -> way, apart from room. rows: instances with `host`, `driver` and `capabilities` of theirs.

    live: True: what runs must go so; False: it is shut down for the way; None: live where that can be.
    bound: instance id -> what its driver says against moving it live.
    """
    ids = [row["id"] for row in rows]
    addresses, known = _of_host_only(c, ids), snapshots.bound_to_host(c, ids)
    found: dict[str, Way] = {}
    for row in rows:
        against = [*addresses.get(row["id"], ()), *(bound or {}).get(row["id"], ())]
        found[row["id"]] = _way(row, live, against, known.get(row["id"], ()))
    return found


def _of_host_only(c: sa.Connection, ids: Sequence[str]) -> dict[str, list[str]]:
    """Return instance id -> its addresses that are good on this host only: what runs would lose them."""
    lease, net = tables.lease, tables.network
    found: dict[str, list[str]] = {}
    for row in sql.fetch_in(
        c, ids,
        lambda part: sa.select(lease.c.instance_id, lease.c.address).where(
            lease.c.network_id == net.c.id, net.c.addressing == "host", lease.c.address.is_not(None),
            lease.c.instance_id.in_(part),
        ),
    ):  # fmt: skip
        found.setdefault(row["instance_id"], []).append(f"address {row['address']} is good on its host only")
    return found


def _way(row: Mapping[Any, Any], live: bool | None, against: Sequence[str], known: Sequence[str]) -> Way:
    state = InstanceState(row["state"])
    runs = state is InstanceState.RUNNING
    can = runs and bool((row["capabilities"] or {}).get(VERBS[Verb.MIGRATE_LIVE].needs)) and not against
    can = can and not row["granted"]
    if live and runs and not can:
        return Way(f"it cannot be moved live: {'; '.join(against) or 'its host cannot do that'}")
    how = {"live": can and live is not False} if runs else {}
    try:
        check_allowed(Verb.MIGRATE, state, row["name"])
        check_disks(Verb.MIGRATE, row)
        snapshots.check_none(row, "a migration", known)
        verb, _ = migration(row, dict(how))
        check_able(verb, row)
    except RackflowError as error:
        return Way(str(error))
    return Way(live=how.get("live"))
