"""What the kit proves now, beside the result that rackflow ships with: docs/drivers.md must not say more, or less."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from core.clock import now, rfc3339
from drivers.conformance import kept
from drivers.conformance.on_host import HostRigs, Where
from drivers.conformance.report import Outcome, Report, Verdict
from drivers.conformance.run import chosen, run

KEEP = "RACKFLOW_KEEP_RESULTS"  # =1: write the result in the place of the shipped one, then `rackflow driver page`
FOLDER = Path(kept.__file__).parent / "proven"


async def kit(where: Where, on: str) -> Report:
    """Run all of the kit against a host."""
    rigs = HostRigs(where)
    told: list[Outcome] = []
    try:
        outcomes = await run(rigs, chosen([]), told.append, lacks=await rigs.lacks())
    finally:
        await rigs.close()
    return Report(where.kind, "rackflow", on, rfc3339(now()) or "", outcomes)


def compare(report: Report) -> None:
    """Fail when a case failed, or when the shipped result says other than this run."""
    failed = [f"{one.family}: {one.case}: {one.reason}" for one in report.outcomes if one.verdict is Verdict.FAILED]
    assert not failed, failed
    if os.environ.get(KEEP) == "1":
        kept.keep(report, FOLDER / f"{report.driver}.json")
    shipped = next((one for one in kept.shipped() if one.driver == report.driver), None)
    assert shipped is not None, f"no result is shipped: {KEEP}=1 writes it"
    assert _verdicts(report) == _verdicts(shipped), f"the shipped result is stale: {KEEP}=1 writes this one"


def _verdicts(report: Report) -> dict[tuple[str, str], Any]:
    return {(row.family, row.verb): (row.verdict, row.proven, row.cases) for row in report.rows()}
