"""The best arrangement, proven: integer programs over counts of flavours by host, solved by HiGHS inside scipy.

Never one variable per instance: that is a hundred times slower (docs/facts/placement.md). What an arrangement costs is
what leaves a host, so who stays where some are now is a variable beside who comes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from control.placement.model import Floats, Ints, Mask
from control.placement.work import CPU, MEMORY
from control.rebalance.flavours import Table
from control.rebalance.model import Item
from control.rebalance.wishes import WORTH_MIB, WORTH_S
from control.rebalance.wishing import program_of

LIMIT_S = 10.0  # for one program; what was found by then is used, and is not called optimal
NODES = 20_000
LARGEST = 6_000  # columns; what has more is planned in parts
GAP = 1e-4  # of the objective: where the search ends
_HAIR = 1e-6
_HINT = 1e-3  # what a broken wish costs where a host has to be emptied: it decides between moves that cost the same


@dataclass(frozen=True)
class Answer:
    """count: how many there are to be in each column of the table; optimal: proven."""

    count: Ints
    optimal: bool


class _Model:
    """Columns: how many come to each column of a table, how many stay where they are, wishes, then further ones."""

    def __init__(self, table: Table, more: int = 0, *, keep: bool = True) -> None:
        self.table = table
        self.there = np.flatnonzero(table.now > 0)  # columns of the table in which some may stay
        self.columns = len(table.host) + len(self.there)
        self.wished = program_of(table, keep=keep)
        self.wishes = slice(self.columns, self.columns + len(self.wished.weight))
        self.width = self.wishes.stop + more
        self.cost, self.spent = np.zeros(self.width), 0.0
        self.low, self.high = np.zeros(self.width), np.full(self.width, np.inf)
        self.high[: len(table.host)] = table.most
        self.high[len(table.host) : self.columns] = table.now[self.there]
        self.whole = np.zeros(self.width)
        self.whole[: self.columns] = 1
        self.high[self.wishes], self.whole[self.wishes] = self.wished.most, self.wished.whole
        self.rows: list[LinearConstraint] = []
        counts = table.count.sum(axis=1)
        self.add(table.by_flavour(), counts, counts)
        if self.wished.high:
            weights, own = self.wished.matrices(len(table.host))
            self.add(weights, -np.inf, np.array(self.wished.high), wished=own)

    def add(self, weights: Any, low: Any, high: Any, extra: Any = None, wished: Any = None) -> None:
        """Add rows: low <= weights times how many there are in the table's columns (+ wishes, further ones) <= high."""
        parts = [weights, weights.tocsc()[:, self.there]]
        for more, width in ((wished, self.wishes.stop - self.columns), (extra, self.width - self.wishes.stop)):
            if width:
                parts.append(sp.csr_matrix((weights.shape[0], width)) if more is None else more)
        self.rows.append(LinearConstraint(sp.hstack(parts, "csc"), low, high))

    def shut(self, hosts: Mask) -> None:
        """Let there be nothing that moves on these hosts of the pool."""
        self.high[: self.columns][hosts[np.concatenate([self.table.host, self.table.host[self.there]])]] = 0

    def limit(self, skip: Sequence[int] = ()) -> None:
        """Add the table's limits, but for these rows."""
        for limit in self.table.limits:
            if limit.row not in skip or limit.row < 0:
                self.add(limit.weights, -np.inf, limit.most)

    def charge(self, costs: Sequence[float], worth: float) -> None:
        """Let what leaves a host cost so much for one of each flavour: all that is there, less what stays.

        worth: what a broken wish of weight 1 costs.
        """
        self.cost[self.wishes] = np.array(self.wished.weight) * worth
        each = self.table.per_column(costs)[self.there]
        self.cost[len(self.table.host) : self.columns] = -each
        self.spent = float(each @ self.table.now[self.there])

    def answer(self, found: tuple[Floats, float, bool], optimal: bool | None = None) -> Answer:
        """Return how many there are to be in each column of the table."""
        count = found[0][: len(self.table.host)].copy()
        count[self.there] += found[0][len(self.table.host) : self.columns]
        return Answer(np.rint(count).astype(np.int64), found[2] if optimal is None else optimal)

    def solve(self) -> tuple[Floats, float, bool] | None:
        """Return values, what they cost at least, and whether that is proven to be the best; None: nothing found."""
        options = {"time_limit": LIMIT_S, "node_limit": NODES, "mip_rel_gap": GAP}
        found = milp(self.cost, integrality=self.whole, bounds=Bounds(self.low, self.high), constraints=self.rows,
                     options=options)  # fmt: skip
        return None if found.x is None else (found.x, float(found.fun) + self.spent, found.status == 0)

    def lowest(self) -> float | None:
        """Return the cost below which nothing can be, were instances divisible; None: not even so."""
        matrix = sp.vstack([row.A for row in self.rows])
        low = np.concatenate([np.broadcast_to(row.lb, row.A.shape[0]) for row in self.rows])
        high = np.concatenate([np.broadcast_to(row.ub, row.A.shape[0]) for row in self.rows])
        same, up, down = low == high, np.isfinite(high) & (low != high), np.isfinite(low) & (low != high)
        found = linprog(
            self.cost, A_eq=matrix[same], b_eq=high[same], A_ub=sp.vstack([matrix[up], -matrix[down]]),
            b_ub=np.concatenate([high[up], -low[down]]), bounds=np.stack([self.low, self.high], axis=1), method="highs",
        )  # fmt: skip
        return float(found.fun) + self.spent if found.status == 0 else None


def consolidate(table: Table) -> Answer | None:
    """Return the arrangement on fewest hosts, of these that for which fewest MiB are moved."""
    least = _used(table, 1.0).lowest()
    quick = _on_fullest(table, math.ceil(least - _HAIR)) if least is not None else None
    if quick is not None and quick.optimal:
        return quick
    model = _used(table, 1.0)
    found = model.solve()
    if found is None:
        return quick
    hosts, proven = round(found[1]), found[2]
    simple, other = _on_fullest(table, hosts), None
    if simple is None or not simple.optimal:
        other = _cheapest(table, hosts)
    answer = other or simple or model.answer(found, optimal=False)
    return Answer(answer.count, proven and answer.optimal)


def _on_fullest(table: Table, hosts: int) -> Answer | None:
    """Return an arrangement on the hosts that hold most, so many of them; optimal if only what has to leave does."""
    mib = _mib(table)
    order = np.lexsort((np.arange(len(mib)), -mib, ~table.fixed))
    kept = np.zeros(len(mib), np.bool_)
    kept[order[:hosts]] = True
    model = _Model(table)
    model.shut(~kept)
    model.limit()
    model.charge([_mib_of(one.items[0]) for one in table.flavours], WORTH_MIB)
    found = model.solve()
    if found is None or (table.fixed & ~kept).any():
        return None
    return model.answer(found, optimal=found[1] <= float(mib[~kept].sum()) + 0.5)


def _mib(table: Table) -> Floats:
    """Return the MiB that would have to leave each host to empty it."""
    carried = np.array([_mib_of(one.items[0]) for one in table.flavours], np.float64)
    return carried @ table.count


def _mib_of(item: Item) -> float:
    return float(max(item.carried_mib, 1))


def _used(table: Table, cost: float) -> _Model:
    """Return a model with one column more per host: whether it is in use."""
    hosts = len(table.scene.hosts)
    model = _Model(table, hosts)
    model.high[-hosts:] = 1
    model.low[-hosts:] = table.fixed
    model.whole[-hosts:] = 1
    model.cost[-hosts:] = cost
    model.limit(skip=(CPU, MEMORY))
    for limit in table.limits:
        if limit.row in (CPU, MEMORY):
            model.add(limit.weights, -np.inf, 0, -sp.diags(limit.most))
    return model


def _cheapest(table: Table, hosts: int) -> Answer | None:
    """Return the arrangement on so many hosts for which fewest MiB are moved."""
    model = _used(table, 0.0)
    model.charge([_mib_of(one.items[0]) for one in table.flavours], WORTH_MIB)
    some = len(table.scene.hosts)
    model.add(sp.csr_matrix((1, len(table.host))), 0, hosts, sp.csr_matrix(np.ones((1, some))))
    found = model.solve()
    return None if found is None else model.answer(found)


def evacuate(table: Table, host: int) -> Answer | None:
    """Return the cheapest arrangement without this host of the pool; others move only to make room."""
    model = _Model(table, keep=False)
    model.shut(np.arange(len(table.scene.hosts)) == host)
    model.limit()
    model.charge([one.items[0].cost_s for one in table.flavours], _HINT)
    found = model.solve()
    return None if found is None else model.answer(found)


def balance(table: Table, threshold: float) -> Answer | None:
    """Return the cheapest arrangement in which no host's share is more than threshold above the lowest possible.

    A host that holds more than that by what stays there keeps it, and gets no more.
    """
    lowest = _level(table).lowest()
    answer = None if lowest is None else _below(table, lowest + threshold)
    if answer is not None or lowest is None:
        return answer
    found = _level(table).solve()  # instances are too large to be spread so evenly
    return None if found is None else _below(table, found[1] + threshold)


def _loads(table: Table) -> list[tuple[Any, Floats]]:
    """Return per load a matrix of shares (hosts by columns), and the share of what does not move."""
    scene, hosts = table.scene, np.array(table.scene.hosts)
    stay = scene.base[:, hosts].astype(np.float64)
    place = {int(h): n for n, h in enumerate(hosts)}
    for item in scene.items:
        if item.stays:
            stay[:, place[item.host]] += (item.load_m, item.load_mib)
    found = []
    for kind, name in enumerate(("load_m", "load_mib")):
        full = scene.full[kind, hosts]
        load = table.per_column([getattr(one.items[0], name) for one in table.flavours])
        found.append((table.by_host(load / full[table.host]), stay[kind] / full))
    return found


def _level(table: Table) -> _Model:
    """Return the model whose last column is the greatest share, to be as low as possible."""
    model = _Model(table, 1)
    model.cost[-1] = 1
    model.limit()
    loads = _loads(table)
    model.low[-1] = max(float(stay.max(initial=0.0)) for _, stay in loads)
    for weights, stay in loads:
        model.add(weights, -np.inf, -stay, -sp.csr_matrix(np.ones((len(stay), 1))))
    return model


def _below(table: Table, level: float) -> Answer | None:
    model = _Model(table)
    model.limit()
    model.charge([one.items[0].cost_s for one in table.flavours], WORTH_S)
    for weights, stay in _loads(table):
        model.add(weights, -np.inf, np.maximum(level - stay, 0) + _HAIR)
    found = model.solve()
    return None if found is None else model.answer(found)
