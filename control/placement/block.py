"""Single copies of different usual shapes, some at a time, with the answer of placing one after the other.

They are scored together on hosts as these are, and one by one only on those that were taken from meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from control.placement import affinity
from control.placement.model import Ints, Mask, Shape, View
from control.placement.single import take_one
from control.placement.usual import Kind, kind_for, need_of, openings
from control.placement.weights import Policy, key_of, keys_of, per_core, scale_of, usual_grid, usual_score
from control.placement.work import CPU, MEMORY, Work, missing

SIZE = 32  # shapes of a block
_NOWHERE = np.iinfo(np.int64).max  # as a key


@dataclass
class _Taken:
    """A host that was taken from. inverse: by datastore, as of weights.Scale."""

    left: list[int]
    crowd: float
    rank: int
    inverse: dict[str | None, list[float]]


@dataclass
class _Block:
    """Shapes to be placed. keys: their order of the hosts at these places, the least first; taken: from those since."""

    shapes: Sequence[Shape]
    kinds: Sequence[Kind]
    at: Ints
    keys: Ints
    column: dict[int, int]  # of keys, by host
    taken: dict[int, _Taken] = field(default_factory=dict)
    barring: list[list[Ints] | None] = field(default_factory=list)  # as affinity.barring says of each shape
    rules: int = -1  # how many there were of others when it did
    drawn: dict[int, tuple[int, Ints]] = field(default_factory=dict)  # of what hosts share, not yet counted


def place_block(
    view: View, work: Work, shapes: Sequence[Shape], policy: Policy, otherwise: Callable[[int], int | None]
) -> list[tuple[int, int] | None]:
    """Take one copy of each of the first shapes where it is best; return the host and the datastore's number of each.

    None: for this one `otherwise` was asked, by its place, which returns the host that it takes. Only if preferred
    hosts come before the others with this policy.
    """
    block = _block(view, work, shapes, policy)
    found: list[tuple[int, int] | None] = []
    if block is None:
        return found
    for n, (shape, kind) in enumerate(zip(block.shapes, block.kinds, strict=True)):
        h, barring = None, _barring(view, work, block)[n]
        if not shape.lifetime_s and shape.cpu_m <= view.fewest_cpus_m and barring is not None:
            h = _best(view, work, policy, block, n, barring)
        if h is None:
            _count(work, block, [row for row, *_ in kind.shared])
            h = otherwise(n)
            found.append(None)
        else:
            _take(view, work, shape, kind, block, h)
            found.append((h, kind.code))
        if h is not None:
            _mark(view, work, block, h)
    _count(work, block, list(block.drawn))
    return found


def _take(view: View, work: Work, shape: Shape, kind: Kind, block: _Block, h: int) -> None:
    take_one(view, work, shape, kind, h, shared=False)
    for row, n, members, _ in kind.shared:
        block.drawn[row] = block.drawn.get(row, (0, members))[0] + n, members


def _count(work: Work, block: _Block, rows: Sequence[int]) -> None:
    """Take what hosts share out of what is left in these rows; there is enough of it for the whole block."""
    for row in rows:
        if row in block.drawn:
            n, members = block.drawn.pop(row)
            work.left[row] -= n * members


def _mark(view: View, work: Work, block: _Block, h: int) -> None:
    """Note that a host was taken from."""
    left, crowd = work.left[:, h].tolist(), float(work.instances[h] * per_core(view)[h])
    known = block.taken.get(h)
    if known is not None:
        known.left, known.crowd = left, crowd
        return
    block.taken[h] = _Taken(left, crowd, int(view.rank[h]), {})
    if h in block.column:
        block.keys[:, block.column[h]] = _NOWHERE


def _block(view: View, work: Work, shapes: Sequence[Shape], policy: Policy) -> _Block | None:
    """Return the first of these shapes, as far as they are usual; None: they are to be placed one by one."""
    if work.measured or work.returned or policy.usual is None:
        return None
    kinds: list[Kind] = []
    drawn: dict[int, int] = {}
    for shape in shapes:
        kind = kind_for(view, work, shape)
        if kind is None:
            break
        for row, n, _, one in kind.shared:
            drawn[row] = drawn.get(row, 0) + n
            if drawn[row] > work.left[row, one]:
                return None
        kinds.append(kind)
    if len(kinds) < 2:
        return None
    usual = shapes[: len(kinds)]
    at = work.preferred.nonzero()[0]
    column = {h: n for n, h in enumerate(at.tolist())}
    block = _Block(usual, kinds, at, _keys(view, work, usual, kinds, policy.usual, at), column)
    for row, barring in zip(block.keys, _barring(view, work, block), strict=True):
        for counts in barring or ():
            row[counts.take(at) > 0] = _NOWHERE
    return block


def _barring(view: View, work: Work, block: _Block) -> list[list[Ints] | None]:
    """Return what affinity.barring says of each shape now: the counts change by themselves, which they are seldom."""
    rules = len(affinity.holders(view, work))
    if rules != block.rules:
        block.barring, block.rules = [affinity.barring(view, work, shape) for shape in block.shapes], rules
    return block.barring


def _keys(
    view: View, work: Work, shapes: Sequence[Shape], kinds: Sequence[Kind], factors: tuple[float, ...], at: Ints
) -> Ints:  # fmt: skip
    """Return in which order each shape takes hosts, the least first; _NOWHERE where it has no room."""
    left = work.left.take(at, axis=1)
    each = [(shape.cpu_m, shape.memory_mib, shape.disk_mib, shape.image_mib) for shape in shapes]
    sizes = np.array(each).T[..., None]
    images, stores = ([getattr(shape, name) for shape in shapes] for name in ("image", "datastore"))
    lacks = _of_each(images, {image: missing(view, work, image).take(at) for image in dict.fromkeys(images)})
    alike = {id(kind): kind for kind in kinds}
    good = _of_each(list(map(id, kinds)), {key: kind.mask.take(at) for key, kind in alike.items()})
    alloc, free = (left.take([kind.disk[n] for kind in kinds], axis=0) for n in (0, 1))
    good &= left[CPU] >= sizes[0]
    good &= left[MEMORY] >= sizes[1]
    good &= alloc >= sizes[2]
    good &= free - sizes[3] * lacks >= sizes[2]
    _shut(left, shapes, kinds, sizes, good)
    one_of = dict(zip(stores, shapes, strict=True))
    scales = {name: scale_of(view, shape).inverse.take(at, axis=1) for name, shape in one_of.items()}
    inverse = [*next(iter(scales.values()))[:2], _of_each(stores, {name: one[2] for name, one in scales.items()})]
    crowd = work.instances.take(at) * per_core(view).take(at)
    need = sizes[:3].astype(np.float64)  # the same numbers: NumPy takes twice as long over products of two types
    score = usual_grid(factors, need, (left[CPU], left[MEMORY], alloc), inverse, crowd, lacks)
    return np.where(good, keys_of(view, score, at), _NOWHERE)


def _shut(left: Ints, shapes: Sequence[Shape], kinds: Sequence[Kind], sizes: Ints, good: Mask) -> None:
    """Take away hosts that lack what few shapes ask for: a device, room in one cell. sizes: as in `_keys`."""
    for n, kind in enumerate(kinds):
        for row, size in kind.extra:
            good[n] &= left[row] >= size
    bound = [n for n, shape in enumerate(shapes) if shape.one_cell]
    if bound:
        cpu_m, memory_mib = left[kinds[bound[0]].cells.T]
        fits = (cpu_m >= sizes[0, bound, None]) & (memory_mib >= sizes[1, bound, None])
        good[bound] &= np.logical_or.reduce(fits, axis=1)


def _of_each(names: Sequence[Any], known: Mapping[Any, Any]) -> Any:
    """Return the arrays of these names as one."""
    if len(known) == 1:
        return np.repeat([*known.values()], len(names), axis=0)
    place = {name: n for n, name in enumerate(known)}
    return np.stack(list(known.values())).take([place[name] for name in names], axis=0)


def _best(
    view: View, work: Work, policy: Policy, block: _Block, n: int, barring: Sequence[Ints]
) -> int | None:  # fmt: skip
    """Return the best host for the shape at this place; None: it fits nowhere, as far as it is known here.

    barring: as `affinity.barring` says.
    """
    shape, kind, row = block.shapes[n], block.kinds[n], block.keys[n]
    place = int(row.argmin()) if len(row) else -1
    least = int(row[place]) if len(row) else _NOWHERE
    best = int(block.at[place]) if least < _NOWHERE else None
    cpu_m, memory_mib, mask, copies = shape.cpu_m, shape.memory_mib, kind.mask, missing(view, work, shape.image)
    for h, one in block.taken.items():
        left = one.left
        if left[CPU] >= cpu_m and left[MEMORY] >= memory_mib and mask[h] and not _is_barred(barring, h):
            key = _key(view, shape, policy, kind, one, h, copies.item(h))
            if key < least:
                least, best = key, h
    if best is None:
        empty = openings(view, work, shape, policy, kind, need_of(shape, kind)) or ()
        best = min(((one.score, view.rank[(h := one.alike.hosts[-1])], h) for one in empty), default=(0, 0, None))[2]
    return best


def _is_barred(barring: Sequence[Ints], h: int) -> bool:
    return any(counts.item(h) for counts in barring)


def _key(view: View, shape: Shape, policy: Policy, kind: Kind, one: _Taken, h: int, lacks: int) -> int:
    """Return the key of a host that was taken from and has the cores and the memory."""
    left, disk_mib, (row, free) = one.left, shape.disk_mib, kind.disk
    alloc = left[row]
    if alloc < disk_mib or left[free] - shape.image_mib * lacks < disk_mib:
        return _NOWHERE
    if kind.extra and any(left[row] < size for row, size in kind.extra):
        return _NOWHERE
    if shape.one_cell and not any(left[c] >= shape.cpu_m and left[m] >= shape.memory_mib for c, m in kind.pairs):
        return _NOWHERE
    inverse = one.inverse.get(shape.datastore)
    if inverse is None:
        inverse = one.inverse[shape.datastore] = scale_of(view, shape).inverse[:, h].tolist()
    sizes = shape.cpu_m, shape.memory_mib, disk_mib
    mine = left[CPU], left[MEMORY], alloc
    score = usual_score(policy.usual or (), sizes, mine, inverse, one.crowd, lacks, empty=False)
    return key_of(score) * len(view) + one.rank
