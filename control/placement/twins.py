"""The same cloud with one more host, empty, like one that is there: to see by solving again whether that would help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from control.placement.model import MANY, Cell, Ints, Pool, Shape, Store, View
from control.placement.work import MEASURED, Work, empty, rows_of

_Scalar = TypeVar("_Scalar", bound=np.generic)
_Key = TypeVar("_Key")


def with_twin(view: View, work: Work, h: int) -> tuple[View, Work]:
    """Return the view and what is left with a copy of host h behind the last; what hosts share, it shares with h."""
    return _view(view, h), _work(view, work, h)


def _more(values: npt.NDArray[_Scalar], h: int, last: float | None = None) -> npt.NDArray[_Scalar]:
    """Return values of all hosts with one more: that of host h, or last."""
    longer = np.append(values, values[h : h + 1])
    if last is not None:
        longer[-1] = last
    return longer


def _pools(pools: Mapping[_Key, Pool], h: int) -> dict[_Key, Pool]:
    return {key: _pool(pool, h) for key, pool in pools.items()}


def _pool(pool: Pool, h: int) -> Pool:
    return Pool(_more(pool.limit, h), np.append(pool.left, pool.limit[h]))


def _store(store: Store, h: int, shared: bool) -> Store:
    group = int(store.group[h])
    if group < 0 or shared:
        return replace(store, group=_more(store.group, h), unseen=_more(store.unseen, h))
    limit = store.limit_mib[group]
    return Store(
        np.append(store.group, len(store.limit_mib)), np.append(store.limit_mib, limit),
        np.append(store.left_mib, limit), np.append(store.free_mib, limit), _more(store.unseen, h),
    )  # fmt: skip


def _view(view: View, h: int) -> View:
    rows = rows_of(view)
    tuples = ("states", "clusters", "labels", "kinds", "drivers", "archs", "kernels", "capabilities")
    arrays = ("unknown", "cpus_m", "cpu_limit_m", "memory_limit_mib", "physical_mib")
    alike: dict[str, Any] = {name: _more(getattr(view, name), h) for name in arrays}
    for name in tuples:
        values = getattr(view, name)
        alike[name] = (*values, *values[h : h + 1])
    return replace(
        view, **alike, names=(*view.names, f"one more like {view.names[h]}"),
        cpu_left_m=np.append(view.cpu_left_m, view.cpu_limit_m[h]), instances=_more(view.instances, h, 0),
        memory_left_mib=np.append(view.memory_left_mib, view.memory_limit_mib[h]),
        stores={name: _store(store, h, rows.alloc[name] in rows.groups) for name, store in view.stores.items()},
        nets={n: replace(net, reach=_more(net.reach, h), group=_more(net.group, h)) for n, net in view.nets.items()},
        images={sha: _more(mask, h, False) for sha, mask in view.images.items()},
        learned=None if view.learned is None else _more(view.learned, h),
        pci=_pools(view.pci, h), hugepages=_pools(view.hugepages, h),
        pins=None if view.pins is None else _pool(view.pins, h),
        cells=tuple(Cell(_pool(c.cpu_m, h), _pool(c.memory_mib, h), _pools(c.pages, h)) for c in view.cells),
        windows_s=None if view.windows_s is None else _more(view.windows_s, h, np.inf),
    )  # fmt: skip


def _work(view: View, work: Work, h: int) -> Work:
    """Return what is left, with a column that is whole but for what hosts share."""
    column: Ints = empty(view).left[:, h].copy()
    column[MEASURED] = MANY
    shared = list({*rows_of(view).groups, *rows_of(view).nets.values()})
    column[shared] = work.left[shared, h]
    return replace(
        work, left=np.column_stack([work.left, column]), load_ratio=_more(work.load_ratio, h, 0),
        instances=_more(work.instances, h, 0), missing={i: _more(one, h, 1) for i, one in work.missing.items()},
        hot=_more(work.hot, h, False), preferred=_more(work.preferred, h, False), exit_s=_more(work.exit_s, h, 0),
        failure_ratio=_more(work.failure_ratio, h),
        members={labels: _more(one, h, 0) for labels, one in work.members.items()},
        holders=None if work.holders is None else {rule: _more(n, h, 0) for rule, n in work.holders.items()},
    )  # fmt: skip


def kinds_of_hosts(view: View, shape: Shape, good: npt.NDArray[np.bool_]) -> list[int]:
    """Return one host of each kind among the good ones, by name: those that differ in what they could hold."""
    found: dict[object, int] = {}
    for h in np.flatnonzero(good)[np.argsort(view.rank[good])].tolist():
        key = (
            view.cpu_limit_m[h], view.memory_limit_mib[h], view.clusters[h], view.drivers[h],
            *(pool.limit[h] for pool in rows_of(view).pools.values()),
            *(view.nets[name].group[h] for name in shape.networks),
        )  # fmt: skip
        found.setdefault(key, h)
    return list(found.values())
