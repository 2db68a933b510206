"""Images and their copies on hosts. Content is known by its sha256; two images with the same content share copies."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from control import hosts, outbox, sql, tables
from control.access import Principal
from control.hosts import HostRecord
from control.ledger import Operation, guard
from control.waiting import wake
from core.clock import now, rfc3339
from core.errors import Conflict, RackflowError, no_such
from core.states import UNFINISHED, CopyState, ImageState, InstanceKind, Verb

_T = tables.image
_COPY = tables.image_copy
_BY_ID = sa.select(_T).where(sql.among(_T.c.id))
_BY_NAME = sa.select(_T).where(sql.among(_T.c.live_name)).order_by(_T.c.id)
_LOCKED_BY_NAME = _BY_NAME.with_for_update(read=True)


@dataclass(frozen=True)
class ImageRecord:
    """An image as the record has it. sha256, format and sizes are empty until it is imported."""

    id: str
    name: str
    kind: InstanceKind
    state: ImageState
    source: str
    sha256: str
    format: str
    size_bytes: int
    virtual_size_mib: int
    min_memory_mib: int
    spec: dict[str, Any]
    labels: dict[str, str]
    error: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime


def record_of(row: Mapping[Any, Any]) -> ImageRecord:
    """Return the record for a row of the table image."""
    values = {name: row[name] for name in ImageRecord.__dataclass_fields__}
    values.update(kind=InstanceKind(row["kind"]), state=ImageState(row["state"]))
    return ImageRecord(**values)


def records(c: sa.Connection, ids: Collection[str]) -> dict[str, ImageRecord]:
    """Return id -> image, deleted ones too."""
    return {row["id"]: record_of(row) for row in sql.fetch_among(c, set(ids), _BY_ID)}


def by_name(c: sa.Connection, names: Collection[str], *, lock: bool = False) -> dict[str, ImageRecord]:
    """Return name -> live image. lock: none of them may be taken away before the transaction ends."""
    rows = sql.fetch_among(c, set(names), _LOCKED_BY_NAME if lock else _BY_NAME)
    return {row["name"]: record_of(row) for row in rows}


def get(c: sa.Connection, name_or_id: str) -> ImageRecord:
    """Return one live image by name, or any by id. Raise NotFound."""
    row = c.execute(
        sa.select(_T).where(sa.or_(_T.c.live_name == name_or_id, _T.c.id == name_or_id))
    ).mappings().first()  # fmt: skip
    if row is None:
        raise no_such("image", name_or_id)
    return record_of(row)


def unusable(image: ImageRecord) -> Conflict:
    """Return the error that says why instances cannot start from an image."""
    why = f": {image.error['message']}" if image.error else ""
    return Conflict(f"image {image.name} is {image.state}{why}", f"image/{image.name}", {}, "import it again")


def record_imported(
    c: sa.Connection, op: Operation, image_id: str, *, sha256: str, format: str, size_bytes: int, virtual_size_mib: int
) -> None:
    """Write what an import found: the image is ready, and deploys that wait for it go on. Raise Stale."""
    guard(c, [op])
    c.execute(
        sa.update(_T).where(_T.c.id == image_id, _T.c.live_name.is_not(None)).values(
            state=ImageState.READY, sha256=sha256, format=format, size_bytes=size_bytes,
            virtual_size_mib=virtual_size_mib, error=None, updated_at=now(),
        )
    )  # fmt: skip
    outbox.emit(c, "image", op.subject, {"image": op.subject_name, "to": ImageState.READY, "size_bytes": size_bytes})
    wake(c)


def record_failed(c: sa.Connection, op: Operation, image_id: str, error: RackflowError) -> None:
    """Write that an image could not be imported. Raise Stale."""
    guard(c, [op])
    set_failed(c, image_id, error.to_dict())


def set_failed(c: sa.Connection, image_id: str, error: Mapping[str, Any] | None) -> None:
    """Mark an image that has no content yet as failed; one that is ready stays ready."""
    c.execute(
        sa.update(_T).where(_T.c.id == image_id, _T.c.state.in_((ImageState.PENDING, ImageState.IMPORTING)))
        .values(state=ImageState.FAILED, error=dict(error) if error else None, updated_at=now())
    )  # fmt: skip
    wake(c)


def keep(c: sa.Connection, image_id: str, error: Mapping[str, Any] | None) -> None:
    """Take back a removal that did not succeed: with content it is ready again, else failed."""
    state = sa.case((_T.c.sha256 != "", ImageState.READY.value), else_=ImageState.FAILED.value)
    c.execute(
        sa.update(_T).where(_T.c.id == image_id, _T.c.state == ImageState.DELETING)
        .values(state=state, error=dict(error) if error else None, updated_at=now())
    )  # fmt: skip


def mark_deleted(c: sa.Connection, op: Operation, image_id: str) -> None:
    """Write that an image is gone; its name is free again. Raise Stale."""
    guard(c, [op])
    c.execute(
        sa.update(_T).where(_T.c.id == image_id)
        .values(state=ImageState.DELETED, live_name=None, error=None, updated_at=now())
    )  # fmt: skip
    outbox.emit(c, "image", op.subject, {"image": op.subject_name, "to": ImageState.DELETED})


def copies(c: sa.Connection, sha256s: Collection[str]) -> list[dict[str, Any]]:
    """Return copies: sha256, host_id, host (name), datastore_id, state, bytes_done, verified_at."""
    h = tables.host
    return [
        dict(row)
        for row in sql.fetch_in(
            c, {one for one in sha256s if one},
            lambda part: sa.select(_COPY, h.c.name.label("host")).where(
                _COPY.c.host_id == h.c.id, _COPY.c.sha256.in_(part)
            ),
        )
    ]  # fmt: skip


def record_copy(
    c: sa.Connection, sha256: str, host_id: str, datastore_id: str, state: CopyState, bytes_done: int
) -> None:
    """Write how far a copy is. READY means that it was verified just now; late progress does not take that back."""
    at = now()
    key = sa.and_(_COPY.c.sha256 == sha256, _COPY.c.host_id == host_id, _COPY.c.datastore_id == datastore_id)
    before = c.execute(sa.select(_COPY.c.state, _COPY.c.bytes_done).where(key)).one_or_none()
    if before is not None and state is CopyState.COPYING and before.state == CopyState.READY:
        return
    verified = at if state is CopyState.READY else None
    sql.upsert(c, _COPY, [{
        "sha256": sha256, "host_id": host_id, "datastore_id": datastore_id, "state": state, "bytes_done": bytes_done,
        "verified_at": verified, "updated_at": at,
    }])  # fmt: skip


def forget_copy(c: sa.Connection, sha256: str, host_id: str, datastore_id: str | None = None) -> None:
    """Write that a host has no copy any more, on one datastore or on all."""
    statement = sa.delete(_COPY).where(_COPY.c.sha256 == sha256, _COPY.c.host_id == host_id)
    c.execute(statement if datastore_id is None else statement.where(_COPY.c.datastore_id == datastore_id))


def unnamed(c: sa.Connection, sha256s: Collection[str]) -> set[str]:
    """Return which content no live image names; nothing while images are being made, for they may be about to."""
    op = tables.operation
    making = sa.select(op.c.id).where(
        op.c.verb.in_((Verb.IMPORT, Verb.SAVE_IMAGE)), op.c.state.in_(UNFINISHED)
    ).limit(1)  # fmt: skip
    if not sha256s or c.execute(making).first() is not None:
        return set()
    rows = sql.fetch_in(
        c, set(sha256s), lambda part: sa.select(_T.c.sha256).where(_T.c.sha256.in_(part), _T.c.live_name.is_not(None))
    )
    return set(sha256s) - {row["sha256"] for row in rows}


def others_with(c: sa.Connection, image: ImageRecord) -> list[str]:
    """Return the names of other live images with the same content."""
    if not image.sha256:
        return []
    return list(
        c.scalars(
            sa.select(_T.c.name).where(
                _T.c.sha256 == image.sha256, _T.c.id != image.id, _T.c.live_name.is_not(None),
                _T.c.state.in_((ImageState.READY, ImageState.PENDING, ImageState.IMPORTING)),
            )
        )
    )  # fmt: skip


def copies_to_remove(c: sa.Connection, image: ImageRecord) -> list[tuple[HostRecord, str]]:
    """Return where copies lie that no other image needs: host and datastore path."""
    if not image.sha256 or others_with(c, image):
        return []
    d = tables.datastore
    rows = c.execute(
        sa.select(_COPY.c.host_id, d.c.path)
        .where(_COPY.c.datastore_id == d.c.id, _COPY.c.sha256 == image.sha256).order_by(_COPY.c.host_id, d.c.path)
    ).all()  # fmt: skip
    found = hosts.by_id(c, {row.host_id for row in rows})
    return [(found[row.host_id], row.path) for row in rows if row.host_id in found]


def list_(
    c: sa.Connection, principal: Principal, *, name: str | None = None, state: str | None = None,
    limit: int | None = None, after: str | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return live images with their copies, oldest first. after: the id of the last one seen."""
    statement = sa.select(_T).where(_T.c.live_name.is_not(None)).order_by(_T.c.id).limit(limit)
    if name is not None:
        statement = statement.where(sa.or_(_T.c.live_name == name, _T.c.id == name))
    if state is not None:
        statement = statement.where(_T.c.state == state)
    if after is not None:
        statement = statement.where(_T.c.id > after)
    found = [record_of(row) for row in c.execute(statement).mappings()]
    there: dict[str, list[dict[str, Any]]] = {}
    for copy in copies(c, {image.sha256 for image in found}):
        there.setdefault(copy["sha256"], []).append({
            "host": copy["host"], "state": copy["state"], "bytes_done": copy["bytes_done"],
            "verified_at": rfc3339(copy["verified_at"]),
        })  # fmt: skip
    return [_view(image, there.get(image.sha256, [])) for image in found]


def show(c: sa.Connection, principal: Principal, name_or_id: str) -> dict[str, Any]:
    """Return one live image with its spec. Raise NotFound."""
    image = get(c, name_or_id)
    found = list_(c, principal, name=image.id)
    if not found:
        raise no_such("image", name_or_id)
    return {**found[0], "spec": image.spec}


def _view(image: ImageRecord, there: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": image.id, "name": image.name, "kind": image.kind, "state": image.state, "source": image.source,
        "sha256": image.sha256 or None, "format": image.format or None, "size_bytes": image.size_bytes or None,
        "virtual_size_mib": image.virtual_size_mib or None, "min_memory_mib": image.min_memory_mib or None,
        "os": image.spec.get("os") or None, "kernel": image.spec.get("kernel") or None, "labels": image.labels,
        "copies": there, "error": image.error,
        "created_at": rfc3339(image.created_at), "updated_at": rfc3339(image.updated_at),
    }  # fmt: skip
