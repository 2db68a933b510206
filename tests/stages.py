"""The order of tests: quick ones first, the live lab last; and the list at the end of what was live."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from lab import preflight

# A test belongs to the last stage that one of its markers names; unmarked ones come first.
STAGES = ("databases", "prefect", "live")
FOLDERS = {
    "tests/databases/": "databases", "tests/prefect/": "prefect", "tests/live/": "live", "tests/chaos/live/": "live",
}  # fmt: skip
PARTS = ("quick", "staged")  # those before all stages, which may run side by side; and those of STAGES
FIRST_LIVE = "tests/live/test_lab.py"  # it makes and removes labs itself, and only one can be there at a time
_REASON_NOT_RUN = "an earlier stage failed, or the run was stopped"


def stage(item: pytest.Item) -> int:
    """Return 0 for quick tests, 1 and up for those of STAGES."""
    return max((n for n, name in enumerate(STAGES, 1) if item.get_closest_marker(name)), default=0)


def mark(items: Sequence[pytest.Item], *, slow: bool = False) -> None:
    """Mark tests by their folders, and skip all live ones, with the reason, where the lab cannot run.

    slow: run also what takes minutes and shows little that others do not; else it is skipped, by name.
    """
    for item in items:
        if not slow and _is_slow(item):
            item.add_marker(pytest.mark.skip(reason="slow: scripts/test --slow runs it"))
        for folder, marker in FOLDERS.items():
            if item.nodeid.startswith(folder):
                item.add_marker(marker)
    live = [item for item in items if item.get_closest_marker("live")]
    missing = preflight.problems() if live else []
    if missing:
        reason = "no lab here: " + "; ".join(map(str, missing))
        for item in live:
            item.add_marker(pytest.mark.skip(reason=reason))


def split(items: Sequence[pytest.Item], part: str) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Return the tests of one of PARTS, and the others; all are marked."""
    quick = [item for item in items if stage(item) == 0]
    staged = [item for item in items if stage(item) > 0]
    return (quick, staged) if part == "quick" else (staged, quick)


def _is_slow(item: pytest.Item) -> bool:
    """Say whether it is marked as slow, or its class names it so: a suite is slow against some drivers only."""
    cls = getattr(item, "cls", None)
    return item.get_closest_marker("slow") is not None or item.name in getattr(cls, "SLOW", ())


def order(item: pytest.Item) -> tuple[int, bool]:
    """Return the key to sort by; the sort is stable, so files stay together."""
    return stage(item), stage(item) == len(STAGES) and not item.nodeid.startswith(FIRST_LIVE)


def stop_between_stages(item: pytest.Item, following: pytest.Item | None) -> None:
    """End the run after a stage that had a failure: what comes next takes minutes."""
    session = item.session
    if following is not None and stage(following) > stage(item) and session.testsfailed:
        session.shouldfail = f"{session.testsfailed} failed; {STAGES[stage(following) - 1]} tests were not begun"


def suite_lines(collected: dict[str, set[str]], stats: dict[str, list[Any]]) -> Iterator[str]:
    """Yield one line per suite and outcome. collected: suite -> its tests, of all staged ones."""
    outcomes: dict[str, dict[str, int]] = {suite: defaultdict(int) for suite in collected}
    seen: set[str] = set()
    for outcome, reports in stats.items():
        for report in reports:
            suite = getattr(report, "nodeid", "").split("::")[0]
            if suite in outcomes and outcome in ("passed", "failed", "error", "skipped"):
                seen.add(report.nodeid)
                outcomes[suite][_words(outcome, report)] += 1
    for suite, tests in sorted(collected.items()):
        if tests - seen:
            outcomes[suite][f"not run ({_REASON_NOT_RUN})"] += len(tests - seen)
        yield f"{suite}: " + ", ".join(f"{count} {words}" for words, count in outcomes[suite].items())


def _words(outcome: str, report: Any) -> str:
    if outcome != "skipped":
        return outcome
    where = report.longrepr
    reason = str(where[2]) if isinstance(where, tuple) else str(where)
    return f"SKIPPED ({reason.removeprefix('Skipped: ')})"


def staged(items: Sequence[pytest.Item]) -> dict[str, set[str]]:
    """Return the suites of later stages and their tests."""
    suites: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if stage(item):
            suites[item.nodeid.split("::")[0]].add(item.nodeid)
    return dict(suites)
