"""`python -m daemon.drivers QUESTION`: what `rackflow driver` starts. JSON in, JSON out, outcomes to standard error.

A process of its own, not the worker: a driver that is only being tried must not be able to block or end that.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from core.clock import now, rfc3339
from core.errors import HostFault, Invalid, NotFound, RackflowError
from core.settings import Settings
from daemon.driver_hosts import FAKE, where
from daemon.settings import load
from drivers import registry
from drivers.conformance import kept
from drivers.conformance.made import Thing
from drivers.conformance.on_host import HostRigs
from drivers.conformance.report import Outcome, Report, Verdict, markdown
from drivers.conformance.run import chosen, run

_SIGNS = {Verdict.PROVEN: "✓", Verdict.FAILED: "✗", Verdict.UNSUPPORTED: "–", Verdict.NOT_REACHED: "?"}
MADE = "conformance/made"  # in the data folder: what the kit has made on hosts
PATIENCE_S = 2.0  # between two signals that are meant
Asked = Mapping[str, Any]


def _latest(settings: Settings) -> dict[str, Report]:
    """Return the latest result of each driver; what was seen on this front-end counts more than what was shipped."""
    found = {report.driver: report for report in kept.shipped()}
    for report in sorted(kept.own(settings.paths.data_dir / "conformance"), key=lambda one: one.at):
        found[report.driver] = report
    return found


def _view(driver: registry.Driver, report: Report | None) -> dict[str, Any]:
    rows = report.rows() if report is not None else []
    counts = {verdict.value: sum(row.verdict is verdict for row in rows) for verdict in Verdict}
    return {
        "name": driver.name, "package": driver.package, "module": driver.module,
        "error": driver.error or _trouble(driver),
        "tried_on": report.on if report else None, "tried_at": report.at if report else None,
        **{name.replace(" ", "_"): count if report else None for name, count in counts.items()},
    }  # fmt: skip


def _trouble(driver: registry.Driver) -> str | None:
    """Return why a driver that a package brings cannot be loaded; rackflow's own are loaded when they are used."""
    if driver.name in registry.OWN:
        return None
    try:
        registry.load(driver.name)
    except RackflowError as error:
        return error.message
    return None


def list_(asked: Asked, settings: Settings) -> dict[str, Any]:
    """Return all drivers, each with what is known of it."""
    latest = _latest(settings)
    return {"drivers": [_view(one, latest.get(one.name)) for one in registry.drivers().values()]}


def show(asked: Asked, settings: Settings) -> dict[str, Any]:
    """Return one driver with the table of what was proven. Raise NotFound."""
    driver = registry.drivers().get(asked["name"])
    if driver is None:
        known = ", ".join(registry.drivers())
        raise NotFound(f"there is no driver {asked['name']}", f"driver/{asked['name']}", fix=f"one of {known}")
    report = _latest(settings).get(driver.name)
    rows = [asdict(row) for row in report.rows()] if report is not None else []
    return {"driver": {**_view(driver, report), "rows": rows}}


def page(asked: Asked, settings: Settings) -> dict[str, Any]:
    """Return the table of docs/drivers.md."""
    return {"page": markdown(kept.shipped())}


def test(asked: Asked, settings: Settings) -> dict[str, Any]:
    """Run the kit, keep the result, and return it."""
    with TemporaryDirectory(prefix="rackflow-conformance-") as folder:
        return asyncio.run(_test(asked, settings, Path(folder)))


async def _test(asked: Asked, settings: Settings, folder: Path) -> dict[str, Any]:
    _hear_signals()
    registry.load(asked["name"])
    driver = registry.drivers()[asked["name"]]
    cases = chosen(asked["families"], asked["cases"])
    made = None if driver.name == FAKE else settings.paths.data_dir / MADE
    rigs = HostRigs(await where(asked, settings, folder), made)
    tell = (lambda _: None) if asked["quiet"] else _tell
    try:
        await _clear_left(rigs)
        has = await (await rigs.host()).hypervisor.capabilities()
        outcomes = await run(rigs, cases, tell, lacks=await rigs.lacks(), first_failure=asked["first_failure"])
    finally:
        await rigs.close()
        if left := rigs.left():
            print(f"left there: {_words(left)}; the next run takes it away", file=sys.stderr, flush=True)
    on = asked["on"] or " ".join(filter(None, (has.version, has.domain_type, has.architecture)))
    on = "the simulation" if driver.name == FAKE and not asked["on"] else on
    report = Report(driver.name, driver.package, on, rfc3339(now()) or "", outcomes)
    if not asked["families"] and not asked["cases"]:  # a part says nothing of the rest
        kept.keep(report, settings.paths.data_dir / "conformance" / f"{driver.name}.json")
    return {"report": report.to_dict(), "failed": report.failed}


def _hear_signals() -> None:
    """Let the first SIGINT or SIGTERM end the run, which takes away what it made; one that comes later ends that, too.

    One Ctrl-C may arrive twice: from the terminal, and from the command line.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    first: list[float] = []

    def stop() -> None:
        if not first or loop.time() - first[0] > PATIENCE_S:
            first.append(loop.time())
            print("taking away what was made …", file=sys.stderr, flush=True)
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)


async def _clear_left(rigs: HostRigs) -> None:
    """Take away what a run that was killed has left. Raise HostFault where that fails, as connecting does."""
    before = rigs.left()
    if not before:
        return
    await rigs.host()
    if left := await rigs.clear(images=True):
        fix = "look why on the host, or try again"
        raise HostFault(f"what an earlier run has left cannot be taken away: {_words(left)}", fix=fix)
    print(f"taken away, since an earlier run was killed: {_words(before)}", file=sys.stderr, flush=True)


def _words(things: Sequence[Thing]) -> str:
    return ", ".join(f"{thing.kind} {thing.name}" for thing in things)


def _tell(outcome: Outcome) -> None:
    """Print how a case ended."""
    reason = f": {outcome.reason}" if outcome.reason else ""
    line = f"{_SIGNS[outcome.verdict]} {outcome.family}: {outcome.case} {outcome.took_s:.1f}s{reason}"
    print(line, file=sys.stderr, flush=True)


VERBS: dict[str, Callable[[Asked, Settings], dict[str, Any]]] = {
    "list": list_, "show": show, "page": page, "test": test,
}  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Print the answer, or {"error"}; return the exit code."""
    try:
        asked = json.loads(argv[0])
        if asked["verb"] not in VERBS:
            raise Invalid(f"there is no verb {asked['verb']}", fix=f"one of {', '.join(VERBS)}")
        print(json.dumps(VERBS[asked["verb"]](asked, load())))
        return 0
    except RackflowError as error:
        print(json.dumps({"error": error.to_dict()}))
        return error.exit_code
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
