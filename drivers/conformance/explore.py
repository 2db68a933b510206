"""State machines over the verbs of a contract: any order, with faults between. Hypothesis chooses, a model judges.

Hypothesis is not asked to shrink: against a real host each step takes time. What failed is told with the steps before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from drivers.conformance.rigs import Effort
from drivers.conformance.tools import Moment, cancelled_after, settle

T = TypeVar("T")
Do = Callable[[Awaitable[Any]], Any]
Disturb = Callable[[], Awaitable[None]] | None
KILLED_AFTER: tuple[Moment, ...] = (1, 2, 3, 4, 6, 9, 0.002, 0.01, 0.05, 0.2)


class Fault(StrEnum):
    """What goes wrong with a call. disturbed: what the rig can let go wrong, such as a lost answer."""

    NONE = "none"
    KILLED = "killed"
    TWICE = "twice"
    DISTURBED = "disturbed"


FAULTS = st.tuples(
    st.sampled_from([Fault.NONE, Fault.NONE, Fault.NONE, Fault.KILLED, Fault.TWICE, Fault.DISTURBED]),
    st.sampled_from(KILLED_AFTER),
)
How = tuple[Fault, Moment]


class Machine(RuleBasedStateMachine):
    """A state machine whose steps are done on the event loop that the driver lives in."""

    def __init__(self, do: Do, disturb: Disturb, effort: Effort) -> None:
        super().__init__()
        self.do = do
        self._disturb = disturb
        self._pause_s = effort.pause_s
        self.steps: list[str] = []

    def note(self, what: str, how: How = (Fault.NONE, 0.0)) -> None:
        """Write down a step before it is done."""
        self.steps.append(what if how[0] is Fault.NONE else f"{what} ({how[0]})")

    def change(self, what: str, call: Callable[[], Awaitable[bool]], expected: bool, how: How) -> None:
        """Do a changing verb, with a fault; it says whether it changed anything, where that can be known."""
        self.note(what, how)
        said = self.do(self._faulty(call, how))
        assert said is None or said is expected, f"{what} said changed={said}"

    async def _faulty(self, call: Callable[[], Awaitable[bool]], how: How) -> bool | None:
        """Return what it said; None after a fault that hides it."""
        fault, moment = how
        if fault is Fault.TWICE:
            return any(await asyncio.gather(*(settle(call, pause_s=self._pause_s) for _ in range(2))))
        if fault is Fault.KILLED:
            await cancelled_after(call(), moment)
        elif fault is Fault.DISTURBED and self._disturb is not None:
            await self._disturb()
        said = await settle(call, pause_s=self._pause_s)
        return said if fault is Fault.NONE else None


async def explore(make: Callable[[Do], Machine], effort: Effort) -> None:
    """Try the machine; raise AssertionError with the steps that led to the first failure."""
    loop = asyncio.get_running_loop()
    last: list[Machine] = []
    over = False
    under_way: set[asyncio.Task[Any]] = set()

    def do(call: Awaitable[Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(unless_over(call), loop).result()

    async def unless_over(call: Awaitable[Any]) -> Any:
        if over:
            raise RuntimeError("the case has ended")
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        try:
            return await call
        finally:
            under_way.discard(task)

    def begin() -> Machine:
        last[:] = [make(do)]
        return last[0]

    chosen = settings(
        max_examples=effort.examples, stateful_step_count=effort.steps, deadline=None, database=None, derandomize=True,
        phases=(Phase.generate,), suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
        print_blob=False,
    )  # fmt: skip
    try:
        await asyncio.to_thread(run_state_machine_as_test, begin, settings=chosen)  # type: ignore[arg-type]
    except Exception as error:
        steps = ", ".join(last[0].steps[-12:]) if last else ""
        raise AssertionError(f"{_first(error)} — after: {steps}") from error
    finally:
        over = True
        for task in under_way:
            task.cancel()


def _first(error: BaseException) -> str:
    """Return the words of the failure itself, whatever Hypothesis wraps it in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) if isinstance(error, AssertionError) and str(error) else f"{type(error).__name__}: {error}"
