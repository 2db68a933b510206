"""What became of the cases: kept line by line, so that a run can be gone on with, and as a table for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.states import Verb
from tests.chaos.faults import Fault
from tests.chaos.matrix import CALM, Outcome

COLUMNS = (CALM, *Fault)

LIVE = "## On real hosts\n"
HEAD = """\
# Chaos

Made by `scripts/chaos`. Each verb of the lifecycle table is asked for on simulated hosts, from every state that it is
allowed from, on VMs and containers, with disks on a local and on a common datastore. At each point that it passes (a
step begins, ends, is being committed; a call to a host before and after it has had its effect) each fault happens once.
Then the fault is healed, time passes for at most {delays} retry delays of two dispatcher rounds and {reconciles}
reconciles, and no operation may be unfinished or held, no instance in a passing state, nothing leaked, nothing lost;
after a delete nothing at all may be left. A full datastore is the one fault after which an operator has to say `retry`.

Each field: cases run, and of these how many failed.

"""


class Results:
    """A file of outcomes, one JSON object a line; those of other code do not count. code: what was tested."""

    def __init__(self, path: Path, code: str) -> None:
        self.path, self._code = path, code
        path.parent.mkdir(parents=True, exist_ok=True)

    def read(self) -> dict[str, Outcome]:
        """Return case -> outcome."""
        found = {}
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            kept = json.loads(line)
            if kept.pop("code") == self._code:
                found[kept["case"]] = Outcome(**kept)
        return found

    def add(self, outcome: Outcome) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"code": self._code, **asdict(outcome)}) + "\n")


def table(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Yield the lines of a table: verbs down, faults across."""
    ran: Counter[tuple[str, str]] = Counter()
    failed: Counter[tuple[str, str]] = Counter()
    for one in outcomes:
        ran[one.verb, one.fault] += 1
        failed[one.verb, one.fault] += one.failed
    verbs = [verb for verb in Verb if any(verb == known for known, _ in ran)]
    yield "| verb | " + " | ".join(COLUMNS) + " |"
    yield "|---" * (len(COLUMNS) + 1) + "|"
    for verb in verbs:
        yield f"| {verb} | " + " | ".join(_field(ran[verb, f], failed[verb, f]) for f in COLUMNS) + " |"


def _field(ran: int, failed: int) -> str:
    return f"{ran}, **{failed}**" if failed else str(ran) if ran else "–"


def write(path: Path, outcomes: list[Outcome], limits: dict[str, int], more: dict[str, Any]) -> None:
    """Write the report; what stands there of real hosts stays."""
    _, live, rest = (path.read_text() if path.exists() else "").partition(LIVE)
    lines = [HEAD.format(**limits), *(line + "\n" for line in table(outcomes))]
    if bad := [one for one in outcomes if one.failed]:
        lines.append("\nCases that failed, at most three for each verb and fault:\n\n")
        shown: Counter[tuple[str, str]] = Counter()
        for one in bad:
            shown[one.verb, one.fault] += 1
            if shown[one.verb, one.fault] <= 3:
                what = "; ".join(f"{kind}: {found[0][:160]}" for kind, found in one.wrong.items())
                lines.append(f"- `{one.case}`: {what}\n")
    lines += [f"\n{title}: `{json.dumps(figures)}`\n" for title, figures in more.items()]
    path.write_text("".join([*lines, *(["\n", live, rest] if live else [])]))
