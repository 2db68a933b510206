"""Rounds of placement as they were: what each was decided from, and what was decided, so that it can be done again.

A round is written in the transaction that places. The view is kept as what differs from one that stands whole in
another row, and so is what the history said of hosts, one row for each version: a round costs little more than what
changed. Rows are kept for some days.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa

from control import round_codec as codec
from control import sql, tables
from control.placement.model import Choice, Request, View
from core.clock import now
from core.ids import new_id

_T = tables.placement_round
VIEW, FEATURES, ROUND = "view", "features", "round"
_WORTH = 3  # a new whole view is written when a round has grown to one part in so many of it
_SMALL = 100  # bytes of a round for each request, whatever its view
_Features = Mapping[str, Any]
_Choice = tuple[int | None, str | None, int]  # host, datastore, position


@dataclass(frozen=True)
class Round:
    """One call of the engine, and what it answered. told: a digest of its explanations."""

    at: datetime
    policy: str
    view: View
    requests: list[Request]
    features: _Features
    choices: list[_Choice]
    told: str


@dataclass
class _Base:
    """Rows that this process wrote last: what rounds are held against. worn: rounds differ much from the view."""

    view: View
    view_id: str
    size: int
    worn: bool = False
    features: _Features | None = None
    features_id: str = ""


_BASES: WeakKeyDictionary[sa.Engine, _Base] = WeakKeyDictionary()


def record(
    c: sa.Connection, view: View, requests: Sequence[Request], features: _Features | None, policy: str,
    choices: Sequence[Choice],
) -> None:  # fmt: skip
    """Write one round down."""
    base = _BASES.get(c.engine)
    if base is None or base.worn or not _is_there(c, base.view_id):  # a transaction that failed took it away
        whole = codec.dump(codec.plain(view))
        kept = (base.features, base.features_id) if base else (None, "")
        base = _BASES[c.engine] = _Base(view, _insert(c, VIEW, whole), len(whole), False, *kept)
    read = _read_of(features)
    if base.features != read or not _is_there(c, base.features_id):
        base.features, base.features_id = read, _insert(c, FEATURES, codec.dump(read))
    shapes = {id(request.shape): request.shape for request in requests}  # to hash each takes its time
    places = {key: n for n, key in enumerate(shapes)}
    data = codec.dump({
        "view": codec.patch(base.view, view), "shapes": [codec.plain(shape) for shape in shapes.values()],
        "told": digest(choices),
    }, {
        "requests": [(r.key, r.name, places[id(r.shape)], r.owner, r.priority, r.gang) for r in requests],
        "choices": [(choice.host, choice.datastore, choice.position) for choice in choices],
    })  # fmt: skip
    base.worn = _WORTH * len(data) > base.size + _SMALL * len(requests)
    _insert(c, ROUND, data, base.view_id, base.features_id, policy)


def _read_of(features: _Features | None) -> _Features:
    """Return what the engine reads of the features: the rest went into the view and the requests."""
    return {"hosts": (features or {}).get("hosts") or {}}


def digest(choices: Sequence[Choice]) -> str:
    """Return a digest of what was told of all choices; equal only where every explanation is."""
    found = hashlib.sha256()
    for told in {id(choice.record): choice.record for choice in choices}.values():
        found.update(json.dumps(told, sort_keys=True).encode())
    return found.hexdigest()


def _insert(
    c: sa.Connection, kind: str, data: bytes, view_id: str = "", features_id: str = "", policy: str = ""
) -> str:
    row_id = new_id()
    sql.insert(c, _T, [{
        "id": row_id, "at": now(), "kind": kind, "view_id": view_id, "features_id": features_id, "policy": policy,
        "data": data,
    }])  # fmt: skip
    return row_id


def _is_there(c: sa.Connection, row_id: str) -> bool:
    return c.scalar(sa.select(_T.c.id).where(_T.c.id == row_id)) is not None


def rounds(c: sa.Connection) -> Iterator[Round]:
    """Yield all rounds that are still kept, the oldest first."""
    known: dict[str, Any] = {}
    for row in c.execute(sa.select(_T).where(_T.c.kind == ROUND).order_by(_T.c.id)).mappings().all():
        for row_id in (row["view_id"], row["features_id"]):
            if row_id not in known:
                known[row_id] = codec.load(c.execute(sa.select(_T.c.data).where(_T.c.id == row_id)).scalar_one())
        if isinstance(known[row["view_id"]], list):
            known[row["view_id"]] = codec.back(known[row["view_id"]])
        yield _round(row, known[row["view_id"]], known[row["features_id"]])


def _round(row: sa.RowMapping, whole: View, features: _Features) -> Round:
    said = codec.load(row["data"])
    shapes = [codec.back(shape) for shape in said["shapes"]]
    requests = [Request(key, name, shapes[n], *rest) for key, name, n, *rest in said["requests"]]
    choices = [(host, store, position) for host, store, position in said["choices"]]
    view = codec.patched(whole, said["view"])
    return Round(row["at"], row["policy"], view, requests, features, choices, said["told"])


def purge(c: sa.Connection, before: datetime) -> int:
    """Take away rounds older than a time, and views and features that none needs any more; return how many."""
    kept = sa.select(_T.c.view_id, _T.c.features_id).where(_T.c.kind == ROUND, _T.c.at >= before)
    needed = {row_id for row in c.execute(kept).all() for row_id in row}
    old = c.scalars(sa.select(_T.c.id).where(_T.c.at < before)).all()
    gone = [row_id for row_id in old if row_id not in needed]
    sql.run_in(c, gone, lambda part: sa.delete(_T).where(_T.c.id.in_(part)))
    return len(gone)
