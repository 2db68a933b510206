"""Migrations that a larger operation asks for, each an operation of its own, found again by the key of its request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from control import access, requests, tables
from control.ledger import Operation, guard, operation_of
from core.states import Verb

_OP, _REQUEST = tables.operation, tables.request


def migrate(c: sa.Connection, op: Operation, body: Mapping[str, Any], *, source: str, key: str) -> Operation:
    """Ask for a migration, for whom the larger operation was asked by; once for each key.

    Raise Stale, and what a request for a migration raises.
    """
    guard(c, [op])
    accepted = requests.submit(
        c, access.find(c, op.asked_by), Verb.MIGRATE, body, source=source, idempotency_key=key
    )
    return accepted.operations[0]


def begun(c: sa.Connection, asked_by: str, key: str) -> dict[str, Operation]:
    """Return what was asked for with keys that begin so, oldest first: rest of the key -> operation."""
    begin = f"{access.find(c, asked_by).id}:{key}"
    rows = c.execute(
        sa.select(_OP, _REQUEST.c.idempotency_key).join(_REQUEST, _REQUEST.c.id == _OP.c.request_id)
        .where(_REQUEST.c.idempotency_key.startswith(begin, autoescape=True)).order_by(_OP.c.id)
    ).mappings()  # fmt: skip
    return {row["idempotency_key"].removeprefix(begin): operation_of(row) for row in rows}
