"""Together or apart: rules between instances, by their labels, and between instances and hosts, by the hosts' labels.

A rule holds within a domain: one host, or all hosts with the same value of a label (rack, row). A role is a label of
instances. Rules of those that run already bind new ones too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from control.placement.model import MANY, At, Column, Floats, Ints, Mask, Rule, Shape, View
from control.placement.work import Work


def matches(rule: Rule, labels: tuple[tuple[str, str], ...]) -> bool:
    """Say whether labels of an instance, or of a host, are those that a rule is about."""
    return set(rule.labels) <= set(labels)


def _domain(view: View, rule: Rule) -> tuple[Ints, Mask]:
    """Return each host's domain by number, and which hosts are in one."""
    found: tuple[Ints, Mask] | None = view.kept.get(("domain", rule.domain))
    if found is None:
        if rule.domain == "host":
            found = np.arange(len(view)), np.ones(len(view), np.bool_)
        else:
            column: Column = view.column("labels", rule.domain)
            found = column.codes, column.where(lambda value: value is not None)
        view.kept["domain", rule.domain] = found
    return found


def _labelled(view: View, rule: Rule) -> Mask:
    """Say which hosts have the labels that a rule is about."""
    found: Mask | None = view.kept.get(("labelled", rule.labels))
    if found is None:
        found = np.array([matches(rule, tuple(labels.items())) for labels in view.labels], np.bool_)
        view.kept["labelled", rule.labels] = found
    return found


def _inside(view: View, rule: Rule, per_host: Ints, at: At) -> Ints:
    """Return for the hosts at these places how many there are in the domain of each."""
    if rule.domain == "host":
        one: Ints = per_host[at]
        return one
    domain, _ = _domain(view, rule)
    return np.bincount(domain, weights=per_host, minlength=1)[domain[at]].astype(np.int64)


def members(view: View, work: Work, rule: Rule) -> Ints:
    """Return for each host how many of the instances that a rule is about it holds."""
    found = work.members.get(rule.labels)
    if found is None:
        found = np.zeros(len(view), np.int64)
        if view.guests is not None and not work.may_wait:
            which = Column(view.guests.labels).where(lambda labels: matches(rule, labels))
            np.add.at(found, view.guests.host[which], 1)
        for labels, hosts, counts in work.placed:
            if matches(rule, labels):
                found[hosts] += counts
        work.members[rule.labels] = found
    return found


def holders(view: View, work: Work) -> dict[Rule, Ints]:
    """Return the hard rules that keep others away, with how many instances on each host have them."""
    if work.holders is None:
        work.holders = {}
        if view.guests is not None and not work.may_wait:
            for host, rules in zip(view.guests.host.tolist(), view.guests.rules, strict=True):
                for rule in rules:
                    _hold(view, work.holders, rule, np.array([host]), 1)
    return work.holders


def _hold(view: View, known: dict[Rule, Ints], rule: Rule, hosts: Ints, counts: Ints | int) -> None:
    if rule.hard and not rule.together and not rule.on_hosts:
        if rule not in known:
            known[rule] = np.zeros(len(view), np.int64)
        known[rule][hosts] += counts


def joined(view: View, work: Work, shape: Shape, hosts: Ints, counts: Ints) -> None:
    """Count copies of a shape, placed on hosts, among those that rules are about; below 0: they have left."""
    known = holders(view, work)
    for rule in shape.rules:
        _hold(view, known, rule, hosts, counts)
    for found in _counted(work, shape.own_labels):
        found[hosts] += counts
    work.placed.append((shape.own_labels, hosts, counts))


def _counted(work: Work, own_labels: tuple[tuple[str, str], ...]) -> list[Ints]:
    """Return those of `work.members` that count instances with these labels."""
    found = work.kept.get(("counted", own_labels))
    if found is None or found[0] != len(work.members):
        mine = [counts for labels, counts in work.members.items() if set(labels) <= set(own_labels)]
        found = work.kept["counted", own_labels] = len(work.members), mine
    arrays: list[Ints] = found[1]
    return arrays


def room(view: View, work: Work, shape: Shape, at: At) -> Ints | None:
    """Return how often a shape fits by hard rules, its own and those of others; None: without limit."""
    found: Ints | None = None
    for _, broken, copies in broken_by(view, work, shape, at):
        one = np.where(broken, 0, copies)
        found = one if found is None else np.minimum(found, one)
    return found


def broken_by(view: View, work: Work, shape: Shape, at: At) -> Iterator[tuple[Rule, Mask, int]]:
    """Yield the hard rules that bind a shape, on which hosts each would be broken, and how often it fits elsewhere."""
    for rule in shape.rules:
        if rule.hard:
            copies = 1 if apart(rule, shape) else MANY
            yield rule, _broken(view, work, shape, rule, at), copies
    known = holders(view, work)
    for rule in binding(view, work, shape):
        yield rule, _inside(view, rule, known[rule], at) > 0, MANY


def by_host(view: View, work: Work, shape: Shape) -> bool:
    """Say whether all rules that bind a shape keep it from single hosts, its own only copies from one another."""
    bound = binding(view, work, shape)
    return all(rule.domain == "host" and apart(rule, shape) for rule in shape.rules) and all(
        rule.domain == "host" for rule in bound
    )


def barring(view: View, work: Work, shape: Shape) -> list[Ints] | None:
    """Return counts per host, of which one above 0 keeps a shape away; None: rules that bind it are about more."""
    bound = binding(view, work, shape)
    if not bound and not shape.rules:
        return []
    if not by_host(view, work, shape):
        return None
    known = holders(view, work)
    return [members(view, work, rule) for rule in shape.rules] + [known[rule] for rule in bound]


def binding(view: View, work: Work, shape: Shape) -> list[Rule]:
    """Return the rules of others that bind a shape."""
    known, key = holders(view, work), ("binding", shape.own_labels)
    found = work.kept.get(key)
    if found is None or found[0] != len(known):
        found = work.kept[key] = len(known), [rule for rule in known if matches(rule, shape.own_labels)]
    rules: list[Rule] = found[1]
    return [rule for rule in rules if rule not in shape.ignores] if shape.ignores else rules


def carriers(view: View, rule: Rule, h: int) -> list[str]:
    """Return the names of the instances in the domain of host h that have a rule, as far as they are known."""
    if view.guests is None:
        return []
    domain, there = _domain(view, rule)
    having = zip(view.guests.names, view.guests.host.tolist(), view.guests.rules, strict=False)
    return sorted({name for name, at, rules in having if rule in rules and there[at] and domain[at] == domain[h]})


def _broken(view: View, work: Work, shape: Shape, rule: Rule, at: At) -> Mask:
    """Say which of the hosts at these places would break a rule."""
    if rule.on_hosts:
        there = _labelled(view, rule)[at]
        return ~there if rule.together else there
    nowhere = ~_domain(view, rule)[1][at]
    if begins(view, work, shape, rule):
        return nowhere
    inside = _inside(view, rule, members(view, work, rule), at) > 0
    return nowhere | (~inside if rule.together else inside)


def apart(rule: Rule, shape: Shape) -> bool:
    """Say whether copies of a shape must be apart from one another."""
    return rule.hard and not rule.together and not rule.on_hosts and matches(rule, shape.own_labels)


def without_others(shape: Shape, mates: Collection[Shape]) -> Shape:
    """Return a shape without hard rules that put it beside instances that none of its mates is like: such may come."""
    kept = tuple(
        rule for rule in shape.rules
        if rule.on_hosts or not (rule.hard and rule.together) or any(matches(rule, one.own_labels) for one in mates)
    )  # fmt: skip
    return shape if kept == shape.rules else replace(shape, rules=kept)


def begins(view: View, work: Work, shape: Shape, rule: Rule) -> bool:
    """Say whether a shape is the first of those that are to be together: where it goes, the others must follow."""
    first = rule.hard and rule.together and not rule.on_hosts and matches(rule, shape.own_labels)
    return first and not members(view, work, rule).any()


def shares(view: View, shape: Shape) -> Iterator[Ints]:
    """Yield the domains, by number for each host, in each of which only one copy of a shape may be."""
    for rule in shape.rules:
        if apart(rule, shape):
            yield _domain(view, rule)[0]


def reason(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    """Return which rule keeps a shape from host h, with how many are there."""
    for rule, broken, _ in broken_by(view, work, shape, np.array([h])):
        if broken[0]:
            return {"reason": _words(view, work, shape, rule, h), "rule": str(rule)}
    return {"reason": "no rule"}


def _words(view: View, work: Work, shape: Shape, rule: Rule, h: int) -> str:
    what = ", ".join(f"{key}={value}" for key, value in rule.labels)
    if rule.on_hosts:
        return f"{'lacks' if rule.together else 'has'} {what}"
    if not _domain(view, rule)[1][h]:
        return f"has no label {rule.domain}, which {rule} is about"
    where = "host" if rule.domain == "host" else f"{rule.domain} {view.labels[h][rule.domain]}"
    own = rule in shape.rules
    counted = members(view, work, rule) if own else holders(view, work)[rule]
    n = int(_inside(view, rule, counted, np.array([h]))[0])
    if rule.together:
        return f"there is no instance with {what} on its {where}"
    return f"{n} with {what} on its {where}" if own else f"{n} on its {where} must be apart from {what}"


def preference(view: View, work: Work, shape: Shape, at: Ints) -> Floats | None:
    """Return the weight of the soft rules that would be broken on the hosts at these places; None: there are none."""
    soft = [rule for rule in shape.rules if not rule.hard]
    if not soft:
        return None
    found = np.zeros(len(at))
    for rule in soft:
        found += rule.weight * _broken(view, work, shape, rule, at)
    return found
