"""What was proven on what: the outcome of each case, and the table of verbs and capabilities that follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """Of a case, and of a verb: failed, if a case that proves it did; proven, if one was and none failed."""

    FAILED = "failed"
    PROVEN = "proven"
    UNSUPPORTED = "unsupported"
    NOT_REACHED = "not reached"


_STRONGEST = (Verdict.FAILED, Verdict.PROVEN, Verdict.NOT_REACHED, Verdict.UNSUPPORTED)


@dataclass(frozen=True)
class Outcome:
    """How one case ended. proves: the verbs it says something about; reason: what failed, or why it says nothing."""

    family: str
    case: str
    proves: tuple[str, ...]
    verdict: Verdict
    reason: str = ""
    took_s: float = 0.0


@dataclass(frozen=True)
class Row:
    """A verb or capability. cases: how many of those that prove it were proven, of how many; reasons: of the others."""

    family: str
    verb: str
    verdict: Verdict
    proven: int
    cases: int
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """One run of the kit. on: what the driver was tried on, with its version; at: RFC 3339."""

    driver: str
    package: str
    on: str
    at: str
    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> bool:
        """Say whether any case failed."""
        return any(one.verdict is Verdict.FAILED for one in self.outcomes)

    def rows(self) -> list[Row]:
        """Return the table, in the order in which the cases stand."""
        keys = dict.fromkeys((one.family, verb) for one in self.outcomes for verb in one.proves)
        return [self._row(family, verb) for family, verb in keys]

    def _row(self, family: str, verb: str) -> Row:
        mine = [one for one in self.outcomes if one.family == family and verb in one.proves]
        verdict = next(one for one in _STRONGEST if one in {outcome.verdict for outcome in mine})
        proven = sum(one.verdict is Verdict.PROVEN for one in mine)
        asked = sum(one.verdict is not Verdict.UNSUPPORTED for one in mine)
        reasons = dict.fromkeys(one.reason for one in mine if one.reason and one.verdict is not Verdict.PROVEN)
        return Row(family, verb, verdict, proven, asked, tuple(reasons))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, with the table that follows from it."""
        return {**asdict(self), "rows": [asdict(row) for row in self.rows()]}


def report_of(data: dict[str, Any]) -> Report:
    """Rebuild a report from `to_dict`."""
    outcomes = tuple(
        Outcome(**{**one, "proves": tuple(one["proves"]), "verdict": Verdict(one["verdict"])})
        for one in data["outcomes"]
    )
    return Report(data["driver"], data["package"], data["on"], data["at"], outcomes)


_SIGNS = {Verdict.PROVEN: "✓", Verdict.FAILED: "**failed**", Verdict.NOT_REACHED: "?", Verdict.UNSUPPORTED: "–"}


def markdown(reports: Sequence[Report]) -> str:
    """Return the capability table of several drivers, one column each, as it stands in docs/drivers.md."""
    tables = [{(row.family, row.verb): row for row in report.rows()} for report in reports]
    keys = dict.fromkeys(key for table in tables for key in table)
    lines = [
        "| | " + " | ".join(report.driver for report in reports) + " |",
        "|---" * (len(reports) + 1) + "|",
        "| *tried on* | " + " | ".join(report.on for report in reports) + " |",
        "| *at* | " + " | ".join(report.at[:10] for report in reports) + " |",
    ]
    for family in dict.fromkeys(family for family, _ in keys):
        lines.append(f"| **{family}** " + "| " * len(reports) + "|")
        lines += [
            f"| `{verb}` | " + " | ".join(_cell(table.get((f, verb))) for table in tables) + " |"
            for f, verb in keys if f == family
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _cell(row: Row | None) -> str:
    if row is None:  # no case about it was meant for a driver that does not claim it
        return _SIGNS[Verdict.UNSUPPORTED]
    partly = row.verdict is Verdict.PROVEN and row.proven < row.cases
    return f"{_SIGNS[row.verdict]} {row.proven} of {row.cases}" if partly else _SIGNS[row.verdict]
