"""From specs to the rules between instances that placement keeps, and which instances on hosts they are about."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import sqlalchemy as sa

from blueprints.instance import Affinity
from control import tables
from control.placement.model import Guests, Rule

_T = tables.instance
_ON_HOSTS = sa.select(
    _T.c.id, _T.c.name, _T.c.host_id, _T.c.other_host_id, _T.c.labels, _T.c.spec["anti_affinity"].label("anti_affinity")
).where(_T.c.host_id.is_not(None), _T.c.live_name.is_not(None)).order_by(_T.c.id)


def rules_of(near: Sequence[Affinity], apart: Sequence[Affinity]) -> tuple[Rule, ...]:
    """Return the rules of a spec."""
    return tuple(
        Rule(together, tuple(sorted(one.labels.items())), one.domain, one.hard, one.weight)
        for together, many in ((True, near), (False, apart)) for one in many
    )  # fmt: skip


def guests_of(c: sa.Connection, index: Mapping[str, int], without: Collection[str] = ()) -> Guests:
    """Return the instances on hosts with their labels, and the rules by which they keep others away.

    One that changes hosts counts on both: nothing that is to be apart from it may come to where it will be.
    """
    found = [row for row in c.execute(_ON_HOSTS) if row.id not in without]
    there = [(index[host], row) for row in found for host in (row.host_id, row.other_host_id) if host in index]
    return Guests(
        np.array([h for h, _ in there], np.int64),
        tuple(tuple(sorted(row.labels.items())) for _, row in there),
        tuple(rules_of((), [Affinity.model_validate(one) for one in row.anti_affinity or ()]) for _, row in there),
        tuple(row.name for _, row in there),
    )
