"""Verb by verb, step by step, point by point, fault by fault: the cases, and what becomes of each."""

from __future__ import annotations

import asyncio
import tempfile
import time
import traceback
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from control import hosts, recovery
from control.lifecycle import VERBS
from core.states import InstanceState, OperationState, Verb
from drivers.fake_world import world
from tests.chaos import clock
from tests.chaos.faults import POWER, Fault, Point, Strike, Watch, watching
from tests.chaos.invariants import Look
from tests.chaos.scenarios import PRECIOUS, SPOILED, THOUGHT, Scenario, ask, prepare
from tests.chaos.scene import Kept, first_line, keep, reconcile, retry_delay, round_, wake
from tests.integration.line import Line, without_prefect

WHILE_UNDOING = (
    Fault.WORKER, Fault.WORKER_HANGS, Fault.FRONT_END, Fault.ANSWER, Fault.DAEMON, Fault.SSH, Fault.POWER_SOURCE,
    Fault.POWER_TARGET, Fault.TIMEOUT, Fault.DELETE,
)  # fmt: skip
LIMIT_S = 20.0  # real seconds that a case may take
CALM = "nothing"  # the fault of the cases in which all goes well
DELAYS = 3  # retry delays until it must have ended
RECONCILES = 2
FORGETS = frozenset({
    Verb.DEPLOY, Verb.START, Verb.SHUTDOWN, Verb.POWEROFF, Verb.REBOOT, Verb.UNDEPLOY, Verb.REDEPLOY, Verb.MIGRATE,
    Verb.REVERT, Verb.REVERT_BACKUP, Verb.FAILOVER, Verb.DELETE,
})  # verbs that may cost a guest its memory  # fmt: skip
REMEMBERS = (InstanceState.RUNNING, InstanceState.SUSPENDED)


@dataclass(frozen=True)
class Case:
    """One fault at one point of a scenario. undone_at: the point where it was cancelled before, "" = it was not."""

    scenario: Scenario
    point: Point
    fault: Fault
    undone_at: str = ""

    @property
    def name(self) -> str:
        undone = f" undone after {self.undone_at}" if self.undone_at else ""
        return f"{self.scenario.name}{undone} {self.point.name} {self.fault.name}"


@dataclass
class Outcome:
    """What was wrong in the end, by kind; ended: the state of the operation; cpu_s: what it cost."""

    case: str
    verb: str
    fault: str
    ended: str = ""
    wrong: dict[str, list[str]] = field(default_factory=dict)
    cpu_s: float = 0.0

    @property
    def failed(self) -> bool:
        return bool(self.wrong)


class Matrix:
    """Makes cases and runs them, in a folder of its own; each scenario is prepared once."""

    def __enter__(self) -> Matrix:
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        self._stack.enter_context(without_prefect())
        self._stack.enter_context(clock.without_waiting())
        self._kept: dict[Scenario, Kept] = {}
        self._points: dict[Scenario, list[Point]] = {}
        self._calm: dict[Scenario, Outcome] = {}
        self._undoing: dict[Scenario, tuple[str, list[Point]]] = {}
        self._undone: dict[Scenario, Outcome] = {}
        self._first = clock.run(self._begin(), within_s=60)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    async def _begin(self) -> Kept:
        return await keep(await first_line(self._folder / "first"), self._folder / "kept")

    def cases(self, scenario: Scenario) -> Iterator[Case]:
        """Yield the cases of a scenario: every point that it passes when all goes well, every fault that fits."""
        for point in self.points(scenario):
            for fault in Fault:
                if point.allows(fault):
                    yield Case(scenario, point, fault)
        undone_at, undoing = self.undoing(scenario)
        for point in undoing:
            for fault in WHILE_UNDOING:
                if point.allows(fault):
                    yield Case(scenario, point, fault, undone_at)

    def undoing(self, scenario: Scenario) -> tuple[str, list[Point]]:
        """Return the last point at which the verb can be cancelled and undone, and the points of the undo."""
        if scenario not in self._undoing:
            self._undoing[scenario], steps = ("", []), VERBS[scenario.verb].steps
            points = self.points(scenario)
            begun = [point for point in points if point.what == "begun"]
            calls = [point for point in points if point.what.endswith("before")][-2:]
            for point in reversed([*calls, *begun] if any(step.compensation for step in steps) else []):
                found: list[Point] = []
                outcome = Outcome(f"{scenario.name} undone after {point.name} {CALM}", scenario.verb, CALM)
                _bounded(self._walk(scenario, found, outcome, point.name), outcome)
                if outcome.ended == OperationState.CANCELLED:
                    self._undoing[scenario] = (point.name, found)
                    self._undone[scenario] = outcome
                    break
        return self._undoing[scenario]

    def points(self, scenario: Scenario) -> list[Point]:
        """Return the points that a scenario passes when all goes well."""
        if scenario not in self._points:
            self._points[scenario] = []
            self._calm[scenario] = outcome = Outcome(f"{scenario.name} {CALM}", scenario.verb, CALM)
            _bounded(self._walk(scenario, self._points[scenario], outcome), outcome)
        return self._points[scenario]

    def try_(self, scenario: Scenario) -> None:
        """Ask for a scenario's verb. Raise what the request raises."""
        clock.run(self._try(scenario), within_s=60)

    async def _try(self, scenario: Scenario) -> None:
        line = await wake(await self._scene(scenario), self._folder / "try")
        try:
            ask(line, scenario)
        finally:
            await _end(line)

    def walked(self) -> list[Outcome]:
        """Return what became of the scenarios that were looked at, when nothing went wrong."""
        return [*self._calm.values(), *self._undone.values()]

    async def _scene(self, scenario: Scenario) -> Kept:
        if scenario not in self._kept:
            self._kept[scenario] = await prepare(self._first, scenario, self._folder / f"s{len(self._kept)}")
        return self._kept[scenario]

    async def _walk(self, scenario: Scenario, points: list[Point], outcome: Outcome, undone_at: str = "") -> None:
        kept = await self._scene(scenario)
        line = await wake(kept, self._folder / "walk")

        strike = Strike(None, "", line, undone_at)

        async def note(point: Point) -> None:
            if not undone_at or any(one.name == undone_at for one in points):
                points.append(watch.placed(point))
            elif point.name == undone_at:
                points.append(point)
            await strike.at(point)

        watch = strike.watch = Watch(line, ask(line, scenario), kept.facts["source"], note)
        with watching(watch, points.append):
            await round_(line)
        del points[: 1 if undone_at else 0]
        look = await _settle_down(line)
        (op,) = line.operations([watch.op_id])
        outcome.ended, outcome.wrong = op.state, _wrong(look, scenario, kept, op.id, None)
        if op.state is not (OperationState.CANCELLED if undone_at else OperationState.DONE):
            outcome.wrong["broke"] = [str(op.error or op.reason)]
        await _end(line)

    def run(self, case: Case) -> Outcome:
        """Run one case to its end."""
        outcome = Outcome(case.name, case.scenario.verb, case.fault)
        kept = clock.run(self._scene(case.scenario), within_s=60)
        began = time.process_time()
        _bounded(self._run(case, kept, outcome), outcome)
        outcome.cpu_s = time.process_time() - began
        return outcome

    async def _run(self, case: Case, kept: Kept, outcome: Outcome) -> None:
        line = await wake(kept, self._folder / "run")
        strike = Strike(case.fault, case.point.name, line, case.undone_at)
        try:
            op_id = ask(line, case.scenario)
            await _first_round(line, strike, op_id, kept.facts["source"])
            if strike.struck is None:
                outcome.wrong["broke"] = ["the point was not passed"]
                return
            await strike.heal()
            look = await _settle_down(line)
            if op_id in look.held() and case.fault is Fault.FULL:  # an operator must make room: that has been done
                line.store.write_now(lambda c: recovery.retry(c, line.admin, op_id))
                look = await _settle_down(line)
            outcome.ended = line.operations([op_id])[0].state
            outcome.wrong = _wrong(look, case.scenario, kept, op_id, case.fault)
            if not outcome.wrong:
                outcome.wrong = await _deleted(line, kept.facts["instance"])
        finally:
            await strike.end()
            await _end(line)


def _bounded(work: Coroutine[Any, Any, None], outcome: Outcome) -> None:
    """Run a case; that it broke, or found no end, is an outcome too."""
    try:
        clock.run(work, within_s=LIMIT_S)
    except clock.Stuck:
        outcome.wrong["unfinished"] = ["a task waits for what never comes"]
    except clock.OutOfTime:
        outcome.wrong["unfinished"] = [f"no end within {LIMIT_S:.0f} s"]
    except Exception as error:
        outcome.wrong["broke"] = [f"{type(error).__name__}: {error}", traceback.format_exc()[-1500:]]


async def _first_round(line: Line, strike: Strike, op_id: str, source: str) -> None:
    watch = strike.watch = Watch(line, op_id, source, strike.at)
    clock.skip(61)
    with watching(watch, strike.inside):
        job = asyncio.ensure_future(round_(line))
        await asyncio.gather(job, return_exceptions=True)
        if not job.cancelled() and (error := job.exception()) is not None:
            raise error


async def _settle_down(line: Line) -> Look:
    """Let the ledger try what waits, and compare with the world; both as often as they may, if that is needed.

    Return the look at what has become of it. Hosts that died before the verb was asked for have power again by then.
    """
    for _ in range(DELAYS):
        await retry_delay(line)
        if not Look(line).unfinished():
            break
    for name in [name for name, host in world.hosts.items() if not host.alive]:
        world.revive(name)
        line.store.write_now(lambda c, host=name: hosts.enable(c, line.admin, host))  # type: ignore[misc]
    if Look(line).unfinished():  # it waits for such a host
        await retry_delay(line)
    for _ in range(RECONCILES):
        await reconcile(line)
        look = Look(line)
        if not look.unfinished() and not look.leaked:
            break
    return look


async def _end(line: Line) -> None:
    await line.runtime.locks.close()
    await line.runtime.pool.close()
    line.store.close_now()


def _wrong(look: Look, scenario: Scenario, kept: Kept, op_id: str, fault: Fault | None) -> dict[str, list[str]]:
    """Return what is wrong, by kind."""
    line = look.line
    before = [one for one in look.held() if one < op_id]
    wrong = {
        "unfinished": look.unfinished(), "passing": look.passing(), "leaked": look.leaked, "harm": look.harm(),
        "held": [str(line.operations([one])[0].error) for one in look.held() if one not in before],
        "lost": list(_lost(look, line, scenario, kept.facts["instance"], op_id, fault)),
        "state": list(_state(look, line, scenario, op_id, fault)),
    }  # fmt: skip
    return {kind: found for kind, found in wrong.items() if found}


def _state(look: Look, line: Line, scenario: Scenario, op_id: str, fault: Fault | None) -> Iterator[str]:
    """Yield it when the instance is not where the table says that the verb leaves it."""
    (op,) = line.operations([op_id])
    (row,) = [row for row in look.instances if row["id"] == op.subject_id]
    rule, state = VERBS[scenario.verb], InstanceState(row["state"])
    if fault is Fault.DELETE:
        if state is not InstanceState.DELETED:
            yield f"a delete was asked for, and it is {state}"
        return
    allowed = {rule.done or scenario.state, rule.failed or scenario.state, scenario.state}
    if op.state is OperationState.DONE:
        then = op.parameters.get("then")
        allowed = {InstanceState(then) if then else rule.done or scenario.state}
    if (fault in POWER or scenario.verb is Verb.FAILOVER) and InstanceState.SUSPENDED in allowed:
        allowed |= {InstanceState.OFF, InstanceState.RUNNING}  # it is off after that, and may be started
    if state not in allowed:
        yield f"{op.verb} is {op.state} and the instance is {state}: {row['reason']}"


def _lost(
    look: Look, line: Line, scenario: Scenario, instance_id: str, op_id: str, fault: Fault | None
) -> Iterator[str]:
    """Yield what the guest had written or remembered and does not have any more."""
    if scenario.verb is Verb.DEPLOY or scenario.state in (InstanceState.PENDING, InstanceState.ON_HOLD):
        return
    done = line.operations([op_id])[0].state is OperationState.DONE
    expected = PRECIOUS
    if (scenario.verb in (Verb.REVERT, Verb.REVERT_BACKUP) and not done) or scenario.verb is Verb.DROP_SNAPSHOT:
        expected = SPOILED
    found = look.data(instance_id)
    if found is not None and not any(expected in text for text in found):
        yield f"the disk holds {[text[:80] for text in found]}, not {expected!r}"
    memory = look.memory(instance_id)
    keeps = scenario.verb not in FORGETS and fault not in POWER and fault is not Fault.DELETE
    if keeps and scenario.state in (*REMEMBERS, InstanceState.STOPPED) and memory not in (None, THOUGHT):
        yield f"its memory is {memory!r}"


async def _deleted(line: Line, instance_id: str) -> dict[str, list[str]]:
    """Delete the instance, and return what is left of it."""
    look = Look(line)
    rows = [row for row in look.instances if row["live_name"] is not None]
    if rows:
        line.submit(Verb.DELETE, {"instances": [row["id"] for row in rows]})
        await retry_delay(line)
    look = Look(line)
    left = [*look.unfinished(), *look.leaked, *look.harm()]
    left += [f"it is {row['state']}" for row in look.instances if row["state"] != InstanceState.DELETED]
    return {"leaked": [f"after a delete: {one}" for one in left]} if left else {}


def worst(outcomes: list[Outcome]) -> dict[str, Any]:
    """Return the figures of many outcomes."""
    def count(*kinds: str) -> int:
        return sum(any(kind in one.wrong for kind in kinds) for one in outcomes)

    return {
        "cases": len(outcomes), "unfinished": count("unfinished", "held", "broke"), "passing_state": count("passing"),
        "leaked": count("leaked", "state"), "data_lost": count("lost", "harm"),
    }  # fmt: skip
