"""Wishes as columns and rows of an exact model: how many have each one broken in each domain."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from control.placement.model import Ints, Mask
from control.rebalance.wishes import WITHIN, Count, Wish

if TYPE_CHECKING:
    from control.rebalance.flavours import Table


@dataclass
class Program:
    """Columns: how many have a wish broken in a domain, and beside it whether enough are there that it is about.

    Rows: low is minus infinity; table: (row, column of the table, factor), own: likewise of the columns here.
    """

    weight: list[float] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)
    most: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    table: list[tuple[int, int, float]] = field(default_factory=list)
    own: list[tuple[int, int, float]] = field(default_factory=list)

    def column(self, weight: float, *, truth: bool = False) -> int:
        """Add a column; truth: it is 0 or 1, else 0 or more."""
        self.weight.append(weight)
        self.whole.append(int(truth))
        self.most.append(1.0 if truth else np.inf)
        return len(self.weight) - 1

    def row(self, high: float, own: dict[int, float], *parts: tuple[Ints, float]) -> None:
        """Add a row: columns of the table by a factor each, and own ones, are at most high."""
        n = len(self.high)
        self.high.append(high)
        self.own += [(n, column, factor) for column, factor in own.items()]
        self.table += [(n, column, factor) for columns, factor in parts for column in columns.tolist()]

    def matrices(self, width: int) -> tuple[Any, Any]:
        """Return the rows over the table's columns, and over the own ones."""
        return (_matrix(self.table, len(self.high), width), _matrix(self.own, len(self.high), len(self.weight)))


def _matrix(entries: list[tuple[int, int, float]], rows: int, columns: int) -> Any:
    at = np.array(entries, np.float64).reshape(-1, 3)
    return sp.csr_matrix((at[:, 2], (at[:, 0].astype(np.int64), at[:, 1].astype(np.int64))), (rows, columns))


def program_of(table: Table, *, keep: bool) -> Program:
    """Return what wishes add to a model. keep: none of them is broken more often than it is now."""
    found = Program()
    hosts, items = np.array(table.scene.hosts, np.int64), table.scene.items
    at, stays = np.array([item.host for item in items], np.int64), np.array([bool(i.stays) for i in items], np.bool_)
    for k, wish in enumerate(table.wishes):
        member, carrier = np.array([one.wished[k] for one in table.flavours])[table.flavour].T
        domain = wish.domain[hosts][table.host]
        fixed, now, first = wish.count(at, stays), wish.broken(wish.count(at)), len(found.weight)
        known = [d for d in np.unique(domain).tolist() if not wish.never[d]]
        for d in known:
            _domain(found, wish, d, domain == d, member, carrier, fixed)
        broken = [n for n in range(first, len(found.weight)) if not found.whole[n]]
        if keep and broken:
            found.row(float(now[known].sum()), dict.fromkeys(broken, 1.0))
    return found


def _domain(
    found: Program, wish: Wish, d: int, here: Mask, member: Mask, carrier: Mask, fixed: Count
) -> None:
    """Add the columns and rows of one domain. here: which columns of the table are in it."""
    mine, members = np.flatnonzero(here & member), int(fixed.members[d])
    everyone = float(wish.members.sum() + members + 2)
    for own, enough in enumerate(WITHIN):
        having, had = np.flatnonzero(here & carrier & (member == bool(own))), float(fixed.carriers[own, d])
        if not len(having) and not had:
            continue
        all_ = float((wish.carriers & (wish.members == bool(own))).sum()) + had
        broken = found.column(wish.rule.weight)
        if wish.always[d]:
            found.row(-had, {broken: -1.0}, (having, 1.0))
            continue
        there = found.column(0.0, truth=True)
        if wish.rule.together:  # there: only if enough are; else all of them have it broken
            found.row(members, {there: float(enough)}, (mine, -1.0))
            found.row(-had, {broken: -1.0, there: -all_}, (having, 1.0))
        else:  # there: if enough are; then all of them have it broken
            found.row(enough - 1.0 - members, {there: -everyone}, (mine, 1.0))
            found.row(all_ - had, {broken: -1.0, there: all_}, (having, 1.0))
            if own and not members and all_ > 1 and (wish.members == wish.carriers).all():
                found.row(all_, {broken: 1.0 - all_}, (mine, all_))  # follows, but tells a relaxation much
