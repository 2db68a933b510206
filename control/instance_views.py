"""Instances as people and programs see them: JSON-ready, only what the asker may see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from control import sql, tables
from control.access import Principal, sees_all
from core.clock import rfc3339
from core.errors import no_such
from core.states import UNFINISHED

_T, _LEASE = tables.instance, tables.lease


def list_(
    c: sa.Connection, principal: Principal, *, name: str | None = None, state: str | None = None,
    host: str | None = None, labels: Mapping[str, str] | None = None, limit: int | None = None,
    after: str | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return live instances, oldest first; a user sees only their own. after: the id of the last one seen."""
    h = tables.host
    statement = _select(principal).where(_T.c.live_name.is_not(None)).order_by(_T.c.id)
    filters = {_T.c.state: state, h.c.name: host}
    for column, value in filters.items():
        if value is not None:
            statement = statement.where(column == value)
    if name is not None:
        statement = statement.where(sa.or_(_T.c.live_name == name, _T.c.id == name))
    if after is not None:
        statement = statement.where(_T.c.id > after)
    wanted = set((labels or {}).items())
    if not wanted:
        statement = statement.limit(limit)
    rows = c.execute(statement).mappings()
    return _views(c, [row for row in rows if wanted <= set(row["labels"].items())][:limit])


def show(c: sa.Connection, principal: Principal, name_or_id: str) -> dict[str, Any]:
    """Return one instance with spec, NICs and what was granted to it: a live one by name, any by id. Raise NotFound."""
    row = _find(c, principal, name_or_id)
    return {
        **_views(c, [row])[0], "spec": row["spec"], "nics": _nics(c, row["id"]), "epoch": row["epoch"],
        "granted": _granted(row["granted"]),
        "blueprint": row["blueprint"] or None, "deleted_at": rfc3339(row["deleted_at"]),
    }  # fmt: skip


def _granted(has: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if has is None:
        return None
    return {
        "cpus": has.get("cpus") or [], "cell": has.get("cell"), "page_kib": has.get("page_kib"),
        "pci": has.get("pci") or [],
    }  # fmt: skip


def id_of(c: sa.Connection, principal: Principal, name_or_id: str) -> str:
    """Return the id of a live instance by name, or of any by id. Raise NotFound."""
    return str(_find(c, principal, name_or_id)["id"])


def _find(c: sa.Connection, principal: Principal, name_or_id: str) -> sa.RowMapping:
    row = c.execute(
        _select(principal).where(sa.or_(_T.c.live_name == name_or_id, _T.c.id == name_or_id))
    ).mappings().first()  # fmt: skip
    if row is None:
        raise no_such("instance", name_or_id)
    return row


def _select(principal: Principal) -> sa.Select[Any]:
    h, image = tables.host, tables.image
    statement = (
        sa.select(_T, h.c.name.label("host"), image.c.name.label("image"))
        .select_from(_T.outerjoin(h, h.c.id == _T.c.host_id).outerjoin(image, image.c.id == _T.c.image_id))
    )  # fmt: skip
    return statement if sees_all(principal) else statement.where(_T.c.owner == principal.name)


def _views(c: sa.Connection, rows: list[sa.RowMapping]) -> list[dict[str, Any]]:
    ids = [row["id"] for row in rows]
    addresses: dict[str, list[str]] = {}
    for lease in sql.fetch_in(
        c, ids,
        lambda part: sa.select(_LEASE.c.instance_id, _LEASE.c.address)
        .where(_LEASE.c.instance_id.in_(part), _LEASE.c.address.is_not(None)).order_by(_LEASE.c.nic_index),
    ):  # fmt: skip
        addresses.setdefault(lease["instance_id"], []).append(lease["address"])
    running = _unfinished(c, ids)
    return [_view(row, addresses.get(row["id"], []), running.get(row["id"])) for row in rows]


def _unfinished(c: sa.Connection, ids: list[str]) -> dict[str, str]:
    """Return instance id -> id of its unfinished operation, of several the one that came last."""
    t = tables.operation
    rows = sql.fetch_in(
        c, [f"instance/{one}" for one in ids],
        lambda part: sa.select(t.c.id, t.c.subject)
        .where(t.c.subject.in_(part), t.c.state.in_(UNFINISHED)).order_by(t.c.id),
    )  # fmt: skip
    return {row["subject"].removeprefix("instance/"): row["id"] for row in rows}


def _nics(c: sa.Connection, instance_id: str) -> list[dict[str, Any]]:
    net = tables.network
    rows = c.execute(
        sa.select(_LEASE, net.c.name.label("network"), net.c.bridge)
        .where(_LEASE.c.network_id == net.c.id, _LEASE.c.instance_id == instance_id).order_by(_LEASE.c.nic_index)
    ).mappings()  # fmt: skip
    return [
        {"index": row["nic_index"], "network": row["network"], "bridge": row["bridge"], "mac": row["mac"],
         "address": row["address"], "prefix_length": row["prefix_length"] or None, "gateway": row["gateway"] or None}
        for row in rows
    ]  # fmt: skip


def _view(row: sa.RowMapping, addresses: list[str], operation: str | None) -> dict[str, Any]:
    return {
        "id": row["id"], "name": row["name"], "kind": row["kind"], "state": row["state"], "host": row["host"],
        "addresses": addresses, "cpu": row["cpu"], "memory_mib": row["memory_mib"], "disk_mib": row["disk_mib"],
        "image": row["image"], "owner": row["owner"], "labels": row["labels"], "reason": row["reason"] or None,
        "operation": operation, "created_at": rfc3339(row["created_at"]), "updated_at": rfc3339(row["updated_at"]),
    }  # fmt: skip
