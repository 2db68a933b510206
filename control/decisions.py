"""Decision records: why an instance was placed where it is, or nowhere. One full record per batch and shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from control import sql, tables
from control.placement.model import Choice
from core.clock import now, rfc3339
from core.errors import NotFound
from core.ids import new_ids

_T = tables.decision


def record(
    c: sa.Connection, decided: Sequence[tuple[Choice, str, str]], hosts: Sequence[str], features_version: int
) -> dict[str, str]:
    """Write decisions (choice, operation id, instance id) and return operation id -> decision id.

    What was decided together shares one record: the first has it, the others say `same_as`.
    """
    firsts: dict[int, str] = {}
    records: list[dict[str, Any]] = []
    ids = new_ids(len(decided))
    for row_id, (choice, _, _) in zip(ids, decided, strict=True):
        first = firsts.setdefault(id(choice.record), row_id)
        own: dict[str, Any] = {"position": choice.position, "datastore": choice.datastore}
        records.append({**own, **choice.record} if first == row_id else {**own, "same_as": first})
    operations = [operation_id for _, operation_id, _ in decided]
    sql.insert_columns(c, _T, {
        "id": ids, "operation_id": operations, "instance_id": [instance_id for _, _, instance_id in decided],
        "host": [hosts[choice.host] if choice.host is not None else "" for choice, _, _ in decided],
        "record": records, "features_version": [features_version] * len(ids), "created_at": [now()] * len(ids),
    })  # fmt: skip
    return dict(zip(operations, ids, strict=True))


def host_for(c: sa.Connection, operation_id: str) -> str:
    """Return the host that was decided on last for an operation; "": none was."""
    found = sa.select(_T.c.host).where(_T.c.operation_id == operation_id, _T.c.host != "")
    return str(c.scalar(found.order_by(_T.c.created_at.desc(), _T.c.id.desc()).limit(1)) or "")


def newest(c: sa.Connection, instance_id: str) -> dict[str, Any]:
    """Return the newest decision on an instance, whole. Raise NotFound when none was made yet."""
    row = c.execute(
        sa.select(_T).where(_T.c.instance_id == instance_id).order_by(_T.c.created_at.desc(), _T.c.id.desc()).limit(1)
    ).mappings().first()  # fmt: skip
    if row is None:
        raise NotFound(
            "nothing was decided yet: no attempt was made to place it", f"instance/{instance_id}", {},
            "its operation shows what it waits for",
        )  # fmt: skip
    said = dict(row["record"])
    first = said.pop("same_as", None)
    if first is not None:
        shared = c.execute(sa.select(_T.c.record).where(_T.c.id == first)).scalar_one_or_none() or {}
        said = {**shared, **said}
    return {
        "id": row["id"], "operation": row["operation_id"], "instance": row["instance_id"], "host": row["host"] or None,
        "decided_at": rfc3339(row["created_at"]), "features_version": row["features_version"], **said,
    }  # fmt: skip
