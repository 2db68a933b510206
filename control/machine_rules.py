"""What a machine is good for, and whether it is sound: rules over its inventory, in the language of placement.

    cpus >= 32 and virtualises and vendor like "Dell*"        smallest_disk_gib >= 400        label.rack == "r1"

Text: name vendor product serial cpu_model arch boot_mode label.KEY. Numbers: cpus cores sockets memory_mib disks
disk_gib smallest_disk_gib ssds nics nics_up fastest_mbps gpus losses (what the last inspection found less of).
virtualises is true or false. A number that the inspection did not tell is none: no comparison with it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from blueprints.machine import CheckSpec, ClassifySpec, MachineRulesSpec
from control.inventories import at
from control.placement.expressions import LABEL, Expression, Type, Words, parse
from core.errors import Invalid

GIB = 2**30
_NAN = float("nan")
GIVES = ("role", "cluster", "rack", "failure_domain")
_GPU = ("03", "12")  # PCI base classes: display controllers, and processing accelerators


@dataclass(frozen=True)
class Subject:
    """One machine as rules see it; stands where placement has all hosts. losses: changes of kind less."""

    name: str
    labels: Mapping[str, str]
    inventory: Mapping[str, Any]
    losses: int = 0

    def __len__(self) -> int:
        return 1


Read = Callable[[Subject], Any]


def _text(path: str) -> Read:
    return lambda subject: at(subject.inventory, path) or None


def _number(path: str) -> Read:
    return lambda subject: float(at(subject.inventory, path) or _NAN)


def _parts(part: str, measure: Callable[[Sequence[Mapping[str, Any]]], float]) -> Read:
    return lambda subject: float(measure(subject.inventory.get(part) or []))


def _most(values: Iterable[float], pick: Callable[..., float]) -> float:
    return float(pick(values, default=_NAN))


_TEXTS: dict[str, Read] = {
    "name": lambda subject: subject.name, "vendor": _text("manufacturer"), "product": _text("product"),
    "serial": _text("serial"), "cpu_model": _text("cpu.model"), "arch": _text("cpu.architecture"),
    "boot_mode": _text("firmware.boot_mode"),
}  # fmt: skip
_NUMBERS: dict[str, Read] = {
    "cpus": _number("cpu.count"), "cores": _number("cpu.cores"), "sockets": _number("cpu.sockets"),
    "memory_mib": _number("memory_mib"), "disks": _parts("disks", len),
    "disk_gib": _parts("disks", lambda disks: sum(d["size_bytes"] for d in disks) / GIB),
    "smallest_disk_gib": _parts("disks", lambda disks: _most((d["size_bytes"] / GIB for d in disks), min)),
    "ssds": _parts("disks", lambda disks: sum(d["rotational"] is False for d in disks)),
    "nics": _parts("nics", len), "nics_up": _parts("nics", lambda nics: sum(bool(n["carrier"]) for n in nics)),
    "fastest_mbps": _parts("nics", lambda nics: _most((n["speed_mbps"] for n in nics if n["speed_mbps"]), max)),
    "gpus": _parts("pci", lambda found: sum(one["kind"][:2] in _GPU for one in found)),
    "losses": lambda subject: float(subject.losses),
}  # fmt: skip


def _expression(type_: Type, read: Callable[[Any], Any]) -> Expression:
    return Expression(type_, lambda subject, work, shape: read(subject))


_ATTRIBUTES = {
    **{name: _expression(Type.TEXT, read) for name, read in _TEXTS.items()},
    **{name: _expression(Type.NUMBER, read) for name, read in _NUMBERS.items()},
    "virtualises": _expression(
        Type.TRUTH, lambda subject: bool({"vmx", "svm"} & set(at(subject.inventory, "cpu.flags") or ()))
    ),
}


def _find(name: str) -> Expression | None:
    if name.startswith(LABEL):
        key = name.removeprefix(LABEL)
        return _expression(Type.TEXT, lambda subject: subject.labels.get(key))
    return _ATTRIBUTES.get(name)


WORDS = Words(_find, (*_ATTRIBUTES, f"{LABEL}KEY"))


def understand(rules: MachineRulesSpec) -> None:
    """Raise Invalid for an expression that is wrong, which names its rule."""
    for one in rules.classify:
        _parse(f"classify {one.name}: when", one.when, Type.TRUTH)
    for check in rules.checks:
        for field, text, type_ in (
            ("when", check.when, Type.TRUTH), ("require", check.require, Type.TRUTH),
            ("figure", check.figure, Type.NUMBER),
        ):  # fmt: skip
            if text:
                _parse(f"checks {check.name}: {field}", text, type_)


def _parse(where: str, text: str, type_: Type) -> None:
    try:
        parse(text, type_, WORDS)
    except Invalid as error:
        raise replace(error, message=f"{where}: {error.message}") from error


def _value(text: str, type_: Type, subject: Subject) -> Any:
    value: Callable[..., Any] = parse(text, type_, WORDS).value
    return np.asarray(value(subject, None, None)).reshape(-1)[0].item()


def holds(text: str, subject: Subject) -> bool:
    """Say whether a condition holds for a machine. Raise Invalid."""
    return bool(_value(text, Type.TRUTH, subject))


def classify(rules: Sequence[ClassifySpec], subject: Subject) -> dict[str, Any]:
    """Return role, cluster, rack and failure domain where a rule gives them, all traits, and which rules held."""
    held = [rule for rule in rules if holds(rule.when, subject)]
    found: dict[str, Any] = {}
    for field in GIVES:
        found[field] = next((given for rule in held if (given := getattr(rule, field)) is not None), None)
    traits = sorted({trait for rule in held for trait in rule.traits})
    return {**found, "traits": traits, "rules": [rule.name for rule in held]}


def check(rules: Sequence[CheckSpec], subject: Subject) -> list[dict[str, Any]]:
    """Return name, passed, figure and requirement of each check that concerns a machine."""
    return [
        {"name": rule.name, "passed": holds(rule.require, subject), "figure": _figure(rule, subject),
         "require": rule.require}
        for rule in rules if rule.when is None or holds(rule.when, subject)
    ]  # fmt: skip


def _figure(rule: CheckSpec, subject: Subject) -> float | None:
    value = _value(rule.figure, Type.NUMBER, subject) if rule.figure else _NAN
    return None if np.isnan(value) else float(value)
