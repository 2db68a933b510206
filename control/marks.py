"""Marks on hosts: another number each time that something of a host changes which placement reads (placing_book.py).

Every update of a row of `host` sets a new mark by itself (tables.py). What stands elsewhere and counts on a host (what
instances hold there, its datastores, its networks) is changed in a transaction that touches the host as well. Marks are
drawn by chance, so a mark that was rolled back is never that of something else.
"""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from control import sql, tables

_HOST, _T = tables.host, tables.instance
_TOUCH = sa.update(_HOST).where(sql.among(_HOST.c.id)).values(mark=sa.bindparam("mark"))
_WHERE = sa.select(_T.c.host_id, _T.c.other_host_id).where(sql.among(_T.c.id))


def touch(c: sa.Connection, host_ids: Collection[str | None]) -> None:
    """Give hosts new marks."""
    for part in sql.parts(c.dialect.name, sorted({one for one in host_ids if one})):
        c.execute(_TOUCH, {sql.PARAMETER: part, "mark": tables.new_mark()})


def touch_all(c: sa.Connection) -> None:
    """Give all hosts new marks."""
    c.execute(sa.update(_HOST).values(mark=tables.new_mark()))


def touch_of(c: sa.Connection, instance_ids: Collection[str]) -> None:
    """Give the hosts new marks on which instances hold something: before they let go of it."""
    touch(c, {host for row in sql.tuples_among(c, instance_ids, _WHERE) for host in row})
