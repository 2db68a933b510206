"""A small language over attributes of hosts and of the instance, for requirements and ranks: worked out on all hosts at
once, and nothing of it is run as Python.

    cpu_free >= 4 and (label.rack in ["r1", "r2"] or not name like "old-*")
    memory_free_mib / 1024 - 10 * load

Text: name cluster state driver arch label.KEY, and instance.kind instance.image instance.label.KEY. Numbers: cpus
cpu_free memory_mib memory_free_mib instances load, and instance.cpu instance.memory_mib instance.disk_mib; number(TEXT)
is the number in a text. A label that is not there equals nothing, and no comparison with it or its number holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import numpy as np

from control.placement.model import Column, Floats, Mask, Shape, View
from control.placement.work import CPU, MEMORY, Work
from core.errors import Invalid

MAX_LENGTH, MAX_DEPTH = 1024, 50


class Type(StrEnum):
    """What an expression comes to on each host."""

    NUMBER = "a number"
    TEXT = "text"
    TRUTH = "true or false"


Value = Callable[[View, Work, Shape], Any]  # an array, one value for all hosts, or the Column of a text


@dataclass(frozen=True)
class Expression:
    """One that was understood. changing: what is placed, or the instance, may change its value."""

    type: Type
    value: Value
    changing: bool = False


def _instance(type_: Type, value: Callable[[Shape], Any]) -> Expression:
    return Expression(type_, lambda view, work, shape: value(shape), changing=True)


def _column(name: str) -> Expression:
    return Expression(Type.TEXT, lambda view, work, shape: view.column(name))


ATTRIBUTES: Mapping[str, Expression] = {
    "name": _column("names"),
    "cluster": _column("clusters"),
    "state": _column("states"),
    "driver": _column("drivers"),
    "arch": _column("archs"),
    "cpus": Expression(Type.NUMBER, lambda view, work, shape: view.cpus_m / 1000),
    "cpu_free": Expression(Type.NUMBER, lambda view, work, shape: work.left[CPU] / 1000, changing=True),
    "memory_mib": Expression(Type.NUMBER, lambda view, work, shape: view.memory_limit_mib),
    "memory_free_mib": Expression(Type.NUMBER, lambda view, work, shape: work.left[MEMORY], changing=True),
    "instances": Expression(Type.NUMBER, lambda view, work, shape: work.instances, changing=True),
    "load": Expression(Type.NUMBER, lambda view, work, shape: work.load_ratio, changing=True),
    "instance.kind": _instance(Type.TEXT, lambda shape: shape.kind),
    "instance.image": _instance(Type.TEXT, lambda shape: shape.image),
    "instance.cpu": _instance(Type.NUMBER, lambda shape: shape.cpu_m / 1000),
    "instance.memory_mib": _instance(Type.NUMBER, lambda shape: shape.memory_mib),
    "instance.disk_mib": _instance(Type.NUMBER, lambda shape: shape.disk_mib),
}
LABEL, INSTANCE_LABEL = "label.", "instance.label."

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<text>\"[^\"]*\"|'[^']*')|(?P<name>[A-Za-z_][\w./-]*\w|[A-Za-z_])"
    r"|(?P<sign>==|!=|<=|>=|[-+*/<>()\[\],])|(?P<end>$))"
)
_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b, "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
}  # fmt: skip
_COUNT: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b,
    "/": lambda a, b: np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=np.asarray(b) != 0),
}  # fmt: skip
_JOIN: Mapping[str, Callable[[Any, Any], Any]] = {"and": np.logical_and, "or": np.logical_or}
_LEVELS = (("or",), ("and",), (*_COMPARE, "in", "like"), ("+", "-"), ("*", "/"))  # what binds weakest first


@dataclass(frozen=True)
class Words:
    """The attributes that an expression may name. find: None for a name that is none of them."""

    find: Callable[[str], Expression | None]
    known: tuple[str, ...]


@lru_cache(maxsize=1024)
def parse(text: str, wanted: Type = Type.TRUTH, words: Words | None = None) -> Expression:
    """Return what an expression means; words: those of placement by default. Raise Invalid with the wrong column."""
    if len(text) > MAX_LENGTH:
        raise Invalid(f"an expression has {len(text)} characters, at most {MAX_LENGTH} are read", "expression")
    parser = _Parser(text, words or PLACEMENT)
    found = parser.binary(0)
    if parser.kind != "end":
        raise parser.wrong(f"found {parser.said!r} where an operator or the end belongs")
    if found.type is not wanted:
        raise Invalid(f"expression {text!r} must come to {wanted}, it comes to {found.type}", "expression")
    return found


def holds(text: str, view: View, work: Work, shape: Shape) -> Mask:
    """Return on which hosts a requirement holds. Raise Invalid."""
    return np.broadcast_to(np.asarray(parse(text).value(view, work, shape), np.bool_), (len(view),))


def number_of(text: str, view: View, work: Work, shape: Shape) -> Floats:
    """Return an expression's number on each host, NaN where it has none. Raise Invalid."""
    value = parse(text, Type.NUMBER).value(view, work, shape)
    return np.broadcast_to(np.asarray(value, np.float64), (len(view),))


class _Parser:
    """One pass over a text, with one token looked at in advance."""

    def __init__(self, text: str, words: Words) -> None:
        self.text, self.words, self.at, self.depth = text, words, 0, 0
        self.kind, self.said, self.column = "", "", 0
        self.step()

    def wrong(self, what: str) -> Invalid:
        where = f"{self.text}\n{' ' * self.column}^"
        return Invalid(f"expression, column {self.column + 1}: {what}\n{where}", "expression")

    def step(self) -> str:
        """Go on to the next token; return the one that was looked at."""
        said, match = self.said, _TOKEN.match(self.text, self.at)
        if match is None:
            self.column = self.at + len(self.text[self.at :]) - len(self.text[self.at :].lstrip())
            raise self.wrong(f"{self.text[self.column]!r} is not part of this language")
        self.kind = str(match.lastgroup)
        self.said, self.column, self.at = match[self.kind], match.start(self.kind), match.end()
        return said

    def expect(self, sign: str) -> None:
        if self.said != sign:
            raise self.wrong(f"expected {sign!r}, found {self.said or 'the end'!r}")
        self.step()

    def need(self, found: Expression, wanted: Type, column: int) -> Expression:
        if found.type is not wanted:
            self.column = column
            raise self.wrong(f"expected {wanted}, found {found.type}")
        return found

    def binary(self, level: int) -> Expression:
        """Read operators of this level and those that bind stronger, from left to right."""
        if level == len(_LEVELS):
            return self.unary()
        first, left = self.column, self.binary(level + 1)
        while self.said in _LEVELS[level] and self.kind in ("name", "sign"):
            at, sign = self.column, self.step()
            if sign == "in":
                left = _among(self.need(left, Type.TEXT, first), self.texts())
            elif sign == "like":
                left = _like(self.need(left, Type.TEXT, first), self.a_text())
            else:
                second = self.column
                left = self.join(sign, (left, first), (self.binary(level + 1), second), at)
        return left

    def join(self, sign: str, left: tuple[Expression, int], right: tuple[Expression, int], at: int) -> Expression:
        a, b = left[0], right[0]
        if sign in _COMPARE:
            if a.type is not b.type or a.type is Type.TRUTH:
                self.column = at
                raise self.wrong(f"{a.type} cannot be compared with {b.type}")
            return _compared(sign, a, b)
        wanted, known = (Type.NUMBER, _COUNT) if sign in _COUNT else (Type.TRUTH, _JOIN)
        for one, column in (left, right):
            self.need(one, wanted, column)
        both = known[sign]
        return Expression(wanted, lambda v, w, s: both(a.value(v, w, s), b.value(v, w, s)), a.changing or b.changing)

    def unary(self) -> Expression:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.wrong(f"more than {MAX_DEPTH} levels")
        try:
            return self.term()
        finally:
            self.depth -= 1

    def term(self) -> Expression:
        column = self.column
        if self.said == "not" and self.kind == "name":
            self.step()
            one = self.need(self.binary(2), Type.TRUTH, column)
            return Expression(Type.TRUTH, lambda v, w, s: np.logical_not(one.value(v, w, s)), one.changing)
        if self.said == "-" and self.kind == "sign":
            self.step()
            one = self.need(self.unary(), Type.NUMBER, column)
            return Expression(Type.NUMBER, lambda v, w, s: -one.value(v, w, s), one.changing)
        if self.said == "(" and self.kind == "sign":
            self.step()
            one = self.binary(0)
            self.expect(")")
            return one
        return self.atom()

    def atom(self) -> Expression:
        kind, said = self.kind, self.said
        if kind == "number":
            self.step()
            return Expression(Type.NUMBER, lambda v, w, s: float(said))
        if kind == "text":
            text = self.a_text()
            return Expression(Type.TEXT, lambda v, w, s: text)
        if kind == "name" and said == "number":
            self.step()
            self.expect("(")
            one = self.need(self.binary(0), Type.TEXT, self.column)
            self.expect(")")
            return Expression(Type.NUMBER, lambda v, w, s: _numbers(one.value(v, w, s)), one.changing)
        if kind == "name":
            found = self.words.find(said)
            if found is None:
                raise self.wrong(f"there is no attribute {said!r}; there are {', '.join(self.words.known)}")
            self.step()
            return found
        raise self.wrong(f"expected a value, found {said or 'the end'!r}")

    def a_text(self) -> str:
        if self.kind != "text":
            raise self.wrong(f"expected a text in quotes, found {self.said or 'the end'!r}")
        return self.step()[1:-1]

    def texts(self) -> frozenset[str]:
        self.expect("[")
        found = [self.a_text()]
        while self.said == ",":
            self.step()
            found.append(self.a_text())
        self.expect("]")
        return frozenset(found)


def _attribute(name: str) -> Expression | None:
    if name.startswith(LABEL):
        key = name.removeprefix(LABEL)
        return Expression(Type.TEXT, lambda view, work, shape: view.column("labels", key))
    if name.startswith(INSTANCE_LABEL):
        key = name.removeprefix(INSTANCE_LABEL)
        return _instance(Type.TEXT, lambda shape: dict(shape.own_labels).get(key))
    return ATTRIBUTES.get(name)


PLACEMENT = Words(_attribute, (*ATTRIBUTES, f"{LABEL}KEY", f"{INSTANCE_LABEL}KEY"))


def _tested(one: Expression, test: Callable[[str], bool]) -> Expression:
    """Return a test of a text; one that is not there passes none."""

    def safe(value: str | None) -> bool:
        return value is not None and test(value)

    def value(view: View, work: Work, shape: Shape) -> Any:
        found = one.value(view, work, shape)
        return found.where(safe) if isinstance(found, Column) else safe(found)

    return Expression(Type.TRUTH, value, one.changing)


def _among(one: Expression, texts: frozenset[str]) -> Expression:
    return _tested(one, lambda value: value in texts)


def _like(one: Expression, pattern: str) -> Expression:
    return _tested(one, lambda value: fnmatchcase(value, pattern))


def _compared(sign: str, a: Expression, b: Expression) -> Expression:
    compare = _COMPARE[sign]

    def numbers(view: View, work: Work, shape: Shape) -> Any:
        left, right = np.asarray(a.value(view, work, shape)), np.asarray(b.value(view, work, shape))
        return compare(left, right) & ~np.isnan(left) & ~np.isnan(right)

    def texts(view: View, work: Work, shape: Shape) -> Any:
        left, right = _text_list(a.value(view, work, shape), view), _text_list(b.value(view, work, shape), view)
        known: dict[tuple[Any, Any], bool] = {}
        for pair in set(zip(left, right, strict=True)):
            missing = None in pair
            known[pair] = sign == "!=" if missing else bool(compare(*pair))
        return np.fromiter((known[pair] for pair in zip(left, right, strict=True)), np.bool_, len(view))

    value = numbers if a.type is Type.NUMBER else texts
    return Expression(Type.TRUTH, value, a.changing or b.changing)


def _text_list(value: Any, view: View) -> list[Any]:
    if isinstance(value, Column):
        return [value.values[code] for code in value.codes.tolist()]
    return [value] * len(view)


def _numbers(value: Any) -> Any:
    if isinstance(value, Column):
        return np.array([_number(one) for one in value.values], np.float64)[value.codes]
    return _number(value)


def _number(text: str | None) -> float:
    try:
        return float(text) if text is not None else float("nan")
    except ValueError:
        return float("nan")
