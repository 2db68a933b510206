"""Results of the kit that are kept: those that rackflow ships with, and those of runs on this front-end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

from core.errors import Invalid
from drivers.conformance.report import Report, report_of

_SHIPPED = "drivers.conformance.proven"
_ORDER = ("kvm", "lxd", "esxi", "fake")  # of the columns in docs/drivers.md; others follow by name


def shipped() -> list[Report]:
    """Return the results that rackflow ships with: of its own drivers, each on what it was tried on last."""
    names = sorted(one.name for one in files(_SHIPPED).iterdir() if one.name.endswith(".json"))
    found = [report_of(json.loads(files(_SHIPPED).joinpath(name).read_text())) for name in names]
    rank = {name: number for number, name in enumerate(_ORDER)}
    return sorted(found, key=lambda one: (rank.get(one.driver, len(rank)), one.driver))


def own(folder: Path) -> Iterator[Report]:
    """Yield the results of runs on this front-end. Raise Invalid (a file is damaged)."""
    for path in sorted(folder.glob("*.json")):
        try:
            yield report_of(json.loads(path.read_text()))
        except (ValueError, KeyError, TypeError) as error:
            fix = "take it away, and run the kit again"
            raise Invalid(f"{path} is no result of the kit: {error}", fix=fix) from error


def keep(report: Report, path: Path) -> None:
    """Write a result, in place of an earlier one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(report), indent=1) + "\n")
    fresh.replace(path)
