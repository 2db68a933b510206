"""Decision records: why an instance was placed where it is, or nowhere. One full record per batch and shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from control import sql, tables
from control.placement.model import Choice
from core.clock import now, rfc3339
from core.errors import NotFound
from core.ids import new_id

_T = tables.decision


def record(
    c: sa.Connection, decided: Sequence[tuple[Choice, str, str]], hosts: Sequence[str], features_version: int
) -> dict[str, str]:
    """Write decisions (choice, operation id, instance id) and return operation id -> decision id.

    What was decided together shares one record: the first has it, the others say `same_as`.
    """
    at = now()
    firsts: dict[int, str] = {}
    ids: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for choice, operation_id, instance_id in decided:
        row_id = ids[operation_id] = new_id()
        own: dict[str, Any] = {"position": choice.position, "datastore": choice.datastore}
        first = firsts.setdefault(id(choice.record), row_id)
        rows.append({
            "id": row_id, "operation_id": operation_id, "instance_id": instance_id,
            "host": hosts[choice.host] if choice.host is not None else "",
            "record": {**own, **choice.record} if first == row_id else {**own, "same_as": first},
            "features_version": features_version, "created_at": at,
        })  # fmt: skip
    sql.insert(c, _T, rows)
    return ids


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
