"""Wishes: rules that are not hard, counted as placement counts them, so that a plan can mend those that are broken.

An instance with a wish to be apart has it broken where another one that the rule is about is in its domain; one to be
together where there is none; both where the host is in no domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np

from control.placement.affinity import matches
from control.placement.model import Column, Floats, Ints, Mask, Rule, View
from control.rebalance.model import Item, Scene

# What mending a wish of weight 1 is worth: ten minutes of moving, at 600 MiB a second.
WORTH_S, WORTH_MIB = 600.0, 360_000.0
WITHIN = (1, 2)  # so many that the rule is about are in a domain with another one: for who is none of them, and who is


@dataclass(frozen=True)
class Count:
    """By domain: how many a rule is about, and how many have it, in two rows: who is none of the former, and who is."""

    members: Ints
    carriers: Ints

    def plus(self, domain: int, member: bool, carrier: bool, by: int) -> Count:
        """Return what is counted with one more, or one less, in a domain."""
        members, carriers = self.members.copy(), self.carriers.copy()
        members[domain] += by * member
        carriers[int(member), domain] += by * carrier
        return Count(members, carriers)


@dataclass(frozen=True)
class Wish:
    """A rule that is not hard. members, carriers: which items it is about, and which have it; domain: of each host.

    always, never: domains in which it is broken, or kept, whoever is there; others: those that are no items.
    """

    rule: Rule
    members: Mask
    carriers: Mask
    domain: Ints
    always: Mask
    never: Mask
    others: Count

    def count(self, hosts: Ints, some: Mask | None = None) -> Count:
        """Return what is where when item n is on hosts[n]. some: only these items count, beside the others."""
        which = np.ones(len(hosts), np.bool_) if some is None else some
        own = _counted(self.domain[hosts], self.members & which, self.carriers & which, len(self.always))
        return Count(self.others.members + own.members, self.others.carriers + own.carriers)

    def unmet(self, members: Ints) -> Mask:
        """Return in which domains it is broken, for who is none of the members, and for who is one."""
        there = members >= np.array(WITHIN)[:, None]
        found: Mask = ((there != self.rule.together) | self.always) & ~self.never
        return found

    def broken(self, count: Count) -> Ints:
        """Return by domain how many have it broken."""
        found: Ints = (count.carriers * self.unmet(count.members)).sum(axis=0)
        return found

    def joining(self, count: Count, member: bool, carrier: bool) -> Ints:
        """Return by domain how many more have it broken when one more comes there."""
        carriers = count.carriers.copy()
        carriers[int(member)] += carrier
        return self.broken(Count(count.members + member, carriers)) - self.broken(count)


def wishes_of(scene: Scene) -> list[Wish]:
    """Return the wishes of what is in a pool, each once."""
    labels, rules = (Column([getattr(one.shape, name) for one in scene.items]) for name in ("own_labels", "rules"))
    wanted = dict.fromkeys(rule for some in rules.values for rule in some if not rule.hard)
    outside = _outside(scene) if wanted else None
    return [_wish(scene, rule, labels, rules, outside) for rule in wanted]


_Outside = tuple[Ints, Column, Column]  # of instances that are not in the pool: hosts, labels and rules


def _outside(scene: Scene) -> _Outside | None:
    guests = scene.view.guests
    if guests is None:
        return None
    at = np.flatnonzero(~scene.inside[guests.host]).tolist()
    return guests.host[at], Column([guests.labels[n] for n in at]), Column([guests.rules[n] for n in at])


def _wish(scene: Scene, rule: Rule, labels: Column, rules: Column, outside: _Outside | None) -> Wish:
    domain, always, never = _domains(scene.view, rule)

    def of(labels: Column, rules: Column) -> tuple[Mask, Mask]:
        return labels.where(lambda one: matches(rule, one)), rules.where(lambda some: rule in some)

    size = len(always)
    others = Count(np.zeros(size, np.int64), np.zeros((2, size), np.int64))
    if outside is not None:
        others = _counted(domain[outside[0]], *of(*outside[1:]), size)
    return Wish(rule, *of(labels, rules), domain, always, never, others)


def _counted(at: Ints, members: Mask, carriers: Mask, size: int) -> Count:
    """Return what is in which domain. at: of each instance."""
    having = np.stack([np.bincount(at[carriers & (members == one)], minlength=size) for one in (False, True)])
    return Count(np.bincount(at[members], minlength=size), having)


def _domains(view: View, rule: Rule) -> tuple[Ints, Mask, Mask]:
    """Return the domain of each host by number, and in which of these a rule is always broken, or never."""
    if rule.on_hosts:
        has = np.array([matches(rule, tuple(labels.items())) for labels in view.labels], np.bool_)
        broken = np.array([True, False])
        return np.where(has == rule.together, 1, 0), broken, ~broken
    if rule.domain == "host":
        none = np.zeros(len(view), np.bool_)
        return np.arange(len(view)), none, none
    column = view.column("labels", rule.domain)
    unknown = np.array([value is None for value in column.values], np.bool_)
    return column.codes, unknown, np.zeros(len(unknown), np.bool_)


def broken(scene: Scene, wishes: Sequence[Wish], hosts: Sequence[int]) -> tuple[float, tuple[tuple[str, str], ...]]:
    """Return the weight of all wishes that are broken when item n is on hosts[n], and those of items: name, rule."""
    at, weight, found = np.array(hosts, np.int64), 0.0, []
    for wish in wishes:
        count = wish.count(at)
        weight += wish.rule.weight * float(wish.broken(count).sum())
        unmet = wish.unmet(count.members)[wish.members.astype(np.int64), wish.domain[at]] & wish.carriers
        found += [(scene.items[n].name, str(wish.rule)) for n in np.flatnonzero(unmet).tolist()]
    return weight, tuple(found)


class Tally:
    """The wishes of a pool while instances move one by one."""

    def __init__(self, scene: Scene) -> None:
        self.wishes = wishes_of(scene)
        hosts = np.array([item.host for item in scene.items], np.int64)
        self._counts = [wish.count(hosts) for wish in self.wishes]
        self._place = {item.id: n for n, item in enumerate(scene.items)}
        self._size = len(scene.view)

    def about(self, item: Item) -> list[int]:
        """Return the places of the wishes that an instance has, or that are about it."""
        n = self._place[item.id]
        return [k for k, wish in enumerate(self.wishes) if wish.members[n] or wish.carriers[n]]

    def change(self, item: Item, here: int) -> Floats | None:
        """Return how much more weight is broken when an instance goes from here to each host; None: it has no part."""
        about, n = self.about(item), self._place[item.id]
        found = np.zeros(self._size)
        for k in about:
            wish, count = self.wishes[k], self._counts[k]
            member, carrier = bool(wish.members[n]), bool(wish.carriers[n])
            left = count.plus(int(wish.domain[here]), member, carrier, -1)
            less = int((wish.broken(left) - wish.broken(count)).sum())
            found += wish.rule.weight * (wish.joining(left, member, carrier)[wish.domain] + less)
        return found if about else None

    def saved(self) -> Tally:
        """Return a copy that further moves leave as it is."""
        found = copy(self)
        found._counts = list(self._counts)
        return found

    def move(self, item: Item, here: int, there: int) -> None:
        """Let an instance be on another host."""
        n = self._place[item.id]
        for k in self.about(item):
            wish = self.wishes[k]
            member, carrier = bool(wish.members[n]), bool(wish.carriers[n])
            left = self._counts[k].plus(int(wish.domain[here]), member, carrier, -1)
            self._counts[k] = left.plus(int(wish.domain[there]), member, carrier, 1)
