"""The kit's own parts: cases, verdicts, words for what failed, tables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from core.errors import Conflict, Invalid, NotFound, Unreachable, Unsupported
from drivers.conformance.cases import Suite, not_reached, raises, unsupported
from drivers.conformance.explain import explain
from drivers.conformance.hypervisor_inside import read
from drivers.conformance.report import Outcome, Report, Verdict, markdown, report_of
from drivers.conformance.run import chosen, run
from drivers.conformance.tools import cancelled_after


class Rigs:
    """Gives the word `rig`, or fails as a host does."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    @asynccontextmanager
    async def hypervisor(self) -> AsyncIterator[Any]:
        if self._error is not None:
            raise self._error
        yield "rig"

    storage = network = transport = hypervisor


async def verdict(call: Any, family: str = "hypervisor", error: Exception | None = None) -> tuple[Verdict, str]:
    suite: Suite[Any] = Suite(family, ("verb",))
    suite.case("verb")(call)
    outcomes = await run(Rigs(error), [(suite, suite.cases[0])], lambda _: None, limit_s=0.2)  # type: ignore[arg-type]
    return outcomes[0].verdict, outcomes[0].reason


async def test_how_a_case_may_end() -> None:
    async def passes(rig: Any) -> None:
        assert rig == "rig"

    async def hangs(rig: Any) -> None:
        await asyncio.sleep(60)

    async def is_not_claimed(rig: Any) -> None:
        unsupported("no such power")

    async def lacks_something(rig: Any) -> None:
        not_reached("no second host")

    async def refuses(rig: Any) -> None:
        raise Unsupported("raw disks")

    async def breaks(rig: Any) -> None:
        raise KeyError("x")

    assert await verdict(passes) == (Verdict.PROVEN, "")
    assert await verdict(hangs) == (Verdict.FAILED, "it did not end within 0 s")
    assert await verdict(is_not_claimed) == (Verdict.UNSUPPORTED, "no such power")
    assert await verdict(lacks_something) == (Verdict.NOT_REACHED, "no second host")
    assert (await verdict(refuses, "storage"))[0] is Verdict.UNSUPPORTED
    assert (await verdict(refuses))[0] is Verdict.FAILED  # a hypervisor says it by its flag
    assert await verdict(breaks) == (Verdict.FAILED, "KeyError: 'x'")
    assert (await verdict(passes, error=Unreachable("gone")))[0] is Verdict.NOT_REACHED


def test_raises_takes_only_what_was_named() -> None:
    with raises(Conflict, NotFound) as caught:
        raise NotFound("none")
    assert caught.value.message == "none"
    with pytest.raises(AssertionError, match="no Conflict"), raises(Conflict):
        pass
    with pytest.raises(AssertionError, match="Conflict was to be raised, not NotFound"), raises(Conflict):
        raise NotFound("none")


async def test_a_failed_assert_is_told_with_what_it_saw() -> None:
    class Blind:
        guests, hypervisor = True, "not a driver"

    with pytest.raises(AssertionError) as caught:
        await read(Blind(), None, "/kept")  # type: ignore[arg-type]
    caught.value.args = ()  # as without pytest, which has rewritten it
    told = explain(caught.value)
    assert "isinstance(driver, Executes)" in told
    assert "hypervisor_inside.py:" in told
    assert "driver='not a driver'" in told


async def test_a_call_is_cut_off_after_some_turns_of_the_loop() -> None:
    reached: list[int] = []

    async def counts() -> None:
        for n in range(10):
            reached.append(n)
            await asyncio.sleep(0)

    assert await cancelled_after(counts(), 3) is True
    assert reached == [0, 1, 2]
    assert await cancelled_after(counts(), 5.0) is False


OUTCOMES = (
    Outcome("hypervisor", "a life", ("define", "start"), Verdict.PROVEN),
    Outcome("hypervisor", "killed", ("define",), Verdict.FAILED, "it is gone"),
    Outcome("hypervisor", "console", ("console", "start"), Verdict.NOT_REACHED, "no image"),
    Outcome("hypervisor", "display", ("display",), Verdict.UNSUPPORTED, "no flag"),
)


def test_a_table_of_verbs() -> None:
    report = Report("kvm", "rackflow", "libvirt 9", "2026-11-27T00:00:00.000Z", OUTCOMES)
    rows = {row.verb: (row.verdict, row.proven, row.cases, row.reasons) for row in report.rows()}
    assert rows == {
        "define": (Verdict.FAILED, 1, 2, ("it is gone",)),
        "start": (Verdict.PROVEN, 1, 2, ("no image",)),
        "console": (Verdict.NOT_REACHED, 0, 1, ("no image",)),
        "display": (Verdict.UNSUPPORTED, 0, 0, ("no flag",)),
    }
    assert report.failed
    assert report_of(report.to_dict()) == report
    lines = markdown([report]).splitlines()
    assert "| `define` | **failed** |" in lines
    assert "| `start` | ✓ 1 of 2 |" in lines
    assert "| `display` | – |" in lines


def test_cases_are_chosen_by_family_and_by_words() -> None:
    assert {suite.family for suite, _ in chosen(["network"])} == {"network"}
    assert [case.title for _, case in chosen([], ["a life"])] == ["a life"]
    for wrong in ((["nothing"], []), ([], ["no such case"])):
        with pytest.raises(Invalid):
            chosen(*wrong)
