"""Import images into the front-end's store, stage them to hosts, remove them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from blueprints.image import ImageSpec
from control import hosts, images, sql, tables
from control.accept.draft import Draft, busy, check_keys, check_unique, names, specs, unfinished
from control.access import Principal, require
from control.images import ImageRecord
from core.clock import now
from core.errors import Conflict, Invalid, no_such
from core.ids import new_id
from core.states import ImageState, Verb

_T = tables.image


def import_(c: sa.Connection, principal: Principal, body: Mapping[str, Any]) -> list[Draft]:
    """Make rows of images; one whose import failed is tried again with the new spec. Raise Conflict, Denied."""
    check_keys(body, ("images",))
    wanted = specs(body, "images", ImageSpec)
    check_unique([spec.name for spec in wanted], "image")
    known = images.by_name(c, [spec.name for spec in wanted])
    running = unfinished(c, [f"image/{image.id}" for image in known.values()])
    ids = iter(sorted(new_id() for _ in wanted))  # so that lists show them in the order asked for
    drafts: list[Draft] = []
    for spec in wanted:
        require(principal, Verb.IMPORT, None, f"image/{spec.name}")
        before = known.get(spec.name)
        if before is not None and f"image/{before.id}" in running:
            raise busy(running[f"image/{before.id}"][0])
        if before is not None and before.state is not ImageState.FAILED:
            raise Conflict(
                f"image {spec.name} exists already", f"image/{spec.name}", {"state": before.state},
                "choose another name, or remove it first",
            )  # fmt: skip
        drafts.append(Draft(f"image/{_row(c, next(ids), spec, before)}", spec.name))
    return drafts


def row_for(c: sa.Connection, spec: ImageSpec) -> str:
    """Make the row of an image whose content comes from elsewhere than its source; return its id."""
    return _row(c, new_id(), spec, None)


def _row(c: sa.Connection, row_id: str, spec: ImageSpec, before: ImageRecord | None) -> str:
    at = now()
    values = {
        "kind": spec.kind, "state": ImageState.PENDING, "source": spec.source, "sha256": "",
        "format": "" if spec.format == "auto" else spec.format, "size_bytes": 0, "virtual_size_mib": 0,
        "min_memory_mib": spec.min_memory_mib or 0, "spec": spec.model_dump(mode="json"), "labels": spec.labels,
        "error": None, "updated_at": at,
    }  # fmt: skip
    if before is not None:
        c.execute(sa.update(_T).where(_T.c.id == before.id).values(values))
        return before.id
    sql.insert(c, _T, [{"id": row_id, "name": spec.name, "live_name": spec.name, "created_at": at, **values}])
    return row_id


def stage(c: sa.Connection, principal: Principal, body: Mapping[str, Any]) -> list[Draft]:
    """Copy an image to hosts, all that could run it when none is named; after what is under way. Raise NotFound."""
    check_keys(body, ("image", "hosts"))
    image = images.get(c, _one_name(body))
    require(principal, Verb.STAGE, None, f"image/{image.name}")
    if image.state not in (ImageState.READY, ImageState.PENDING, ImageState.IMPORTING):
        raise images.unusable(image)
    named = names(body, "hosts", required=False)
    if named:
        hosts.records(c, named)
    before = unfinished(c, [f"image/{image.id}"]).get(f"image/{image.id}", [])
    return [
        Draft(
            f"image/{image.id}", image.name, {"hosts": named}, after_id=before[-1].id if before else None,
            waits_for_subject=bool(before),
        )
    ]  # fmt: skip


def _one_name(body: Mapping[str, Any]) -> str:
    name = body.get("image")
    if not isinstance(name, str) or not name:
        raise Invalid("image is missing", "request", fix="name the image to be copied")
    return name


def remove(c: sa.Connection, principal: Principal, body: Mapping[str, Any]) -> list[Draft]:
    """Take images away from the store and from every host. Raise Conflict while instances are made of them."""
    check_keys(body, ("images",))
    found = _lock(c, names(body, "images"))
    running = unfinished(c, [f"image/{image.id}" for image in found])
    users = _users(c, [image.id for image in found])
    for image in found:
        require(principal, Verb.REMOVE, None, f"image/{image.name}")
        if f"image/{image.id}" in running:
            raise busy(running[f"image/{image.id}"][0])
        if image.id in users:
            raise Conflict(
                f"image {image.name} is used by {', '.join(users[image.id][:5])}", f"image/{image.name}",
                {"instances": users[image.id]}, "delete those instances first",
            )  # fmt: skip
    at = now()
    sql.run_in(
        c, [image.id for image in found],
        lambda part: sa.update(_T).where(_T.c.id.in_(part)).values(state=ImageState.DELETING, updated_at=at),
    )  # fmt: skip
    return [Draft(f"image/{image.id}", image.name) for image in found]


def _lock(c: sa.Connection, wanted: Sequence[str]) -> list[ImageRecord]:
    rows = sql.fetch_in(
        c, wanted,
        lambda part: sa.select(_T).where(_T.c.live_name.in_(part)).order_by(_T.c.id).with_for_update(),
    )  # fmt: skip
    missing = sorted(set(wanted) - {row["name"] for row in rows})
    if missing:
        raise no_such("image", *missing)
    return [images.record_of(row) for row in rows]


def _users(c: sa.Connection, ids: Sequence[str]) -> dict[str, list[str]]:
    t = tables.instance
    rows = sql.fetch_in(
        c, ids,
        lambda part: sa.select(t.c.image_id, t.c.name).where(t.c.image_id.in_(part), t.c.live_name.is_not(None)),
    )  # fmt: skip
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["image_id"], []).append(row["name"])
    return found
