"""What a larger operation has asked for, each an operation of its own: found again by the key of its request."""

from __future__ import annotations

import sqlalchemy as sa

from control import access, tables
from control.ledger import Operation, operation_of

_OP, _REQUEST = tables.operation, tables.request


def begun(c: sa.Connection, asked_by: str, key: str) -> dict[str, Operation]:
    """Return what was asked for with keys that begin so, oldest first: rest of the key -> operation."""
    begin = f"{access.find(c, asked_by).id}:{key}"
    rows = c.execute(
        sa.select(_OP, _REQUEST.c.idempotency_key).join(_REQUEST, _REQUEST.c.id == _OP.c.request_id)
        .where(_REQUEST.c.idempotency_key.startswith(begin, autoescape=True)).order_by(_OP.c.id)
    ).mappings()  # fmt: skip
    return {row["idempotency_key"].removeprefix(begin): operation_of(row) for row in rows}
