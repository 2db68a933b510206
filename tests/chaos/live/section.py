"""The part of docs/chaos.md that tells of real hosts."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.live.faults import LiveFault
from tests.chaos.live.verbs import verbs
from tests.chaos.matrix import Outcome
from tests.chaos.report import LIVE

RESULTS = Path(__file__).resolve().parents[3] / "build" / "chaos" / "live.jsonl"
HEAD = """
Made by `scripts/chaos --live`, seed {seed}: each verb with each fault once on the lab's hosts, on a VM or a container,
the fault in the middle of a step that the seed chose. Afterwards the operation must have ended, and after two looks
nothing may be in a passing state, hosts and front-end must hold exactly what the record says (domains, containers,
folders, files, volumes, taps, veths, parked files, backups, images), and the guest must have the word that it wrote;
after a delete nothing is left. Run so far: {ran} of {of}.

"""


def write(report: Path, outcomes: list[Outcome], seed: int) -> None:
    """Write it at the end of the report, in place of what stood there."""
    before, _, _ = (report.read_text() if report.exists() else "").partition(LIVE)
    lines = [before.rstrip("\n"), "\n\n", LIVE, _head(outcomes, seed), *_table(outcomes), *_bad(outcomes)]
    report.write_text("".join(lines))


def _head(outcomes: list[Outcome], seed: int) -> str:
    return HEAD.format(seed=seed, ran=len(outcomes), of=len(verbs()) * len(LiveFault))


def _table(outcomes: list[Outcome]) -> list[str]:
    found = {(one.verb, one.fault): one for one in outcomes}
    lines = [f"| verb | {' | '.join(LiveFault)} |", "|---" * (len(LiveFault) + 1) + "|"]
    lines += [f"| {verb} | {' | '.join(_field(found.get((verb, fault))) for fault in LiveFault)} |" for verb in verbs()]
    return [line + "\n" for line in lines]


def _field(one: Outcome | None) -> str:
    if one is None:
        return "not run"
    _, kind, step, _ = one.case.split()
    return f"{kind}, {step}: {'**wrong**' if one.failed else one.ended}"


def _bad(outcomes: list[Outcome]) -> list[str]:
    bad = [one for one in outcomes if one.failed]
    said = [(one.case, "; ".join(f"{kind}: {what[0][:300]}" for kind, what in one.wrong.items())) for one in bad]
    lines = [f"- `{case}`: {what}" for case, what in said]
    return ["\n", *(line + "\n" for line in lines)] if bad else []
