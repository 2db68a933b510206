"""`scripts/chaos [--sim | --live] [--shard I/N] [--seed N]`: run the matrix and write docs/chaos.md.

A run that was stopped goes on where it was: outcomes stand in build/chaos, for the code that they were found with.
The last line is one JSON object of figures.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.chaos import interleavings, matrix, report
from tests.chaos.matrix import Case, Matrix, Outcome
from tests.chaos.poisoned import POISONS, Poisoned
from tests.chaos.scenarios import all_scenarios

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Run what the arguments ask for; return the exit code."""
    given = arguments()
    if given.live:
        return _live(given)
    results = report.Results(given.results, given.code or _code())
    with Matrix() as found:
        cases = _chosen(found, given)
        _calm(found, results)
        _run(found, cases, results, given.minutes)
    more: dict[str, Any] = {}
    if not given.only and not given.sample:
        more = orders(given)
        more["One poisoned instance among 100: the others' median time to running, with it to without"] = _poisoned()
    known = list(results.read().values())
    report.write(given.report, known, {"delays": matrix.DELAYS, "reconciles": matrix.RECONCILES}, more)
    print(json.dumps(matrix.worst(known)))
    return int(any(one.failed for one in known) or any(one.get("broken") for one in more.values()))


def orders(given: argparse.Namespace) -> dict[str, Any]:
    """Run this shard's part of the orders of events; none if it has none."""
    _, of = given.shard.split("/")
    count = given.interleavings // int(of)
    title = f"Two workers, and a world whose answers come late, twice or never (seed {given.seed})"
    return {title: interleavings.run(count, given.seed)} if count else {}


def _live(given: argparse.Namespace) -> int:
    """Run each pair of verb and fault on the lab's hosts, and write its part of the report."""
    from tests.chaos.live import section

    code = given.code or _code()
    os.environ.setdefault("RACKFLOW_TEST_KEEP_LAB", "1")
    os.environ |= {
        "RACKFLOW_CHAOS_ALL": "1", "RACKFLOW_CHAOS_SEED": str(given.seed), "RACKFLOW_CHAOS_SHARD": given.shard,
        "RACKFLOW_CHAOS_ONLY": given.only, "RACKFLOW_CHAOS_CODE": code, "RACKFLOW_CHAOS_MINUTES": str(given.minutes),
    }  # fmt: skip
    subprocess.call([sys.executable, "-m", "pytest", "-q", "tests/chaos/live"], cwd=ROOT)
    known = list(report.Results(section.RESULTS, code).read().values())
    section.write(given.report, known, given.seed)
    print(json.dumps(matrix.worst(known)))
    return int(not known or any(one.failed for one in known))


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return what is asked for; argv: as on the command line, which it is by default."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description="Kill and cut at every step of every verb.")
    parser.add_argument("--sim", action="store_true", help="on simulated hosts (the default)")
    parser.add_argument("--live", action="store_true", help="on the lab's real hosts")
    parser.add_argument("--shard", default="1/1", help="I/N: every N-th scenario, beginning with the I-th")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the cases")
    parser.add_argument("--sample", type=int, default=0, help="only that many cases, all (verb, fault) pairs first")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    parser.add_argument("--minutes", type=float, default=0, help="stop after that time; go on in another run")
    parser.add_argument("--interleavings", type=int, default=10_000, help="of all shards together; 0: none")
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "chaos" / "sim.jsonl")
    parser.add_argument("--report", type=Path, default=ROOT / "docs" / "chaos.md")
    parser.add_argument("--code", default="", help="name of what is tested; by default the commit")
    return parser.parse_args(argv)


def _code() -> str:
    said = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    return said.stdout.strip()


def _chosen(found: Matrix, given: argparse.Namespace) -> list[Case]:
    """Return this shard's cases in the seed's order."""
    first, of = (int(part) for part in given.shard.split("/"))
    scenarios = [one for one in all_scenarios() if given.only.split(" ")[0] in one.name][first - 1 :: of]
    cases = [case for one in scenarios for case in found.cases(one) if given.only in case.name]
    return sampled(cases, given.seed, given.sample or len(cases))


def sampled(cases: list[Case], seed: int, count: int) -> list[Case]:
    """Return that many cases in the seed's order: one of each pair of verb and fault, then any."""
    order = list(cases)
    random.Random(seed).shuffle(order)
    pairs = {(case.scenario.verb, case.fault): case for case in reversed(order)}
    first = list(pairs.values())
    known = set(first)
    return [*first, *(case for case in order if case not in known)][: max(count, len(first))]


def _poisoned() -> dict[str, float | str]:
    """Return the ratio for each poison: the median of five paired runs."""
    with Poisoned() as runs:
        found: dict[str, float | str] = {}
        for name in POISONS:
            try:
                found[name] = round(runs.ratio(name, pairs=5), 3)
            except AssertionError as error:
                found[name] = f"good ones did not run in the end: {error}"[:200]
        return found


def _calm(found: Matrix, results: report.Results) -> None:
    """Keep what became of the scenarios that were looked at, when nothing went wrong."""
    done = results.read()
    for outcome in found.walked():
        if outcome.case not in done:
            results.add(outcome)
            _tell(0, 0, outcome)


def _run(found: Matrix, cases: list[Case], results: report.Results, minutes: float) -> None:
    done = results.read()
    began = time.monotonic()
    for number, case in enumerate(cases, 1):
        if minutes and time.monotonic() - began > minutes * 60:
            return
        if case.name in done:
            continue
        outcome = found.run(case)
        results.add(outcome)
        _tell(number, len(cases), outcome)


def _tell(number: int, of: int, outcome: Outcome) -> None:
    if outcome.failed:
        print(f"FAILED {outcome.case}: {json.dumps(outcome.wrong)[:400]}", flush=True)
    elif number and number % 500 == 0:
        print(f"{number} of {of}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
