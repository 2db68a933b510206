"""Run the kit: every case of the chosen families with a rig of its own, one after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from core.errors import Invalid, Retryable, Unsupported
from drivers.conformance import (
    any_order,
    hypervisor,
    hypervisor_consoles,
    hypervisor_disks,
    hypervisor_keeps,
    hypervisor_powers,
    network,
    storage,
    storage_restore,
    transport,
)
from drivers.conformance.cases import Case, NotReached, Suite, UnsupportedHere
from drivers.conformance.explain import explain
from drivers.conformance.report import Outcome, Verdict
from drivers.conformance.rigs import HypervisorRig, NetworkRig, StorageRig
from drivers.conformance.transport import TransportRig

# they fill the suites
PARTS = (hypervisor_disks, hypervisor_keeps, hypervisor_powers, hypervisor_consoles, storage_restore)
SUITES: tuple[Suite[Any], ...] = (
    hypervisor.CASES, hypervisor.POWERS, any_order.LIVES, storage.CASES, any_order.DISKS, network.CASES,
    any_order.BRIDGES, transport.CASES,
)  # fmt: skip
FAMILIES = tuple(dict.fromkeys(suite.family for suite in SUITES))
CASE_LIMIT_S = 600.0
Tell = Callable[[Outcome], None]


class Rigs(Protocol):
    """Gives each family's rig for one case; what the case makes is gone when the context is left."""

    def hypervisor(self) -> AbstractAsyncContextManager[HypervisorRig]: ...
    def storage(self) -> AbstractAsyncContextManager[StorageRig]: ...
    def network(self) -> AbstractAsyncContextManager[NetworkRig]: ...
    def transport(self) -> AbstractAsyncContextManager[TransportRig]: ...


def chosen(families: Sequence[str], words: Sequence[str] = ()) -> list[tuple[Suite[Any], Case[Any]]]:
    """Return the cases of some families (all), and of these those whose names hold one of the words. Raise Invalid."""
    if unknown := sorted(set(families) - set(FAMILIES)):
        raise Invalid(f"there is no family {', '.join(unknown)}", fix=f"one of {', '.join(FAMILIES)}")
    found = [
        (suite, case)
        for suite in SUITES if not families or suite.family in families
        for case in suite.cases if not words or any(word in case.title for word in words)
    ]  # fmt: skip
    if not found:
        raise Invalid(f"no case is named like {', '.join(words)}", fix="leave it out: all cases run")
    return found


async def run(
    rigs: Rigs, cases: Sequence[tuple[Suite[Any], Case[Any]]], tell: Tell, *, lacks: frozenset[str] = frozenset(),
    first_failure: bool = False, limit_s: float = CASE_LIMIT_S,
) -> tuple[Outcome, ...]:
    """Run cases; tell each outcome as it comes. Raise Invalid where asserts are off.

    lacks: flags that the driver does not claim; a case about several verbs says nothing about these. first_failure: end
    with it.
    """
    if not __debug__:
        raise Invalid("the kit checks by assert, which this Python leaves out", fix="run it without -O")
    outcomes: list[Outcome] = []
    for suite, case in cases:
        begin = time.monotonic()
        verdict, reason = await _outcome(getattr(rigs, suite.family), suite, case, limit_s)
        took_s = round(time.monotonic() - begin, 2)
        said = case.proves if verdict is Verdict.UNSUPPORTED else tuple(v for v in case.proves if v not in lacks)
        outcomes.append(Outcome(suite.family, case.title, said, verdict, reason, took_s))
        tell(outcomes[-1])
        if first_failure and verdict is Verdict.FAILED:
            break
    return tuple(outcomes)


async def _outcome(
    rig: Callable[[], AbstractAsyncContextManager[Any]], suite: Suite[Any], case: Case[Any], limit_s: float
) -> tuple[Verdict, str]:
    """Run one case and judge it; whatever the driver raises is its failure, not ours."""
    given = False
    try:
        async with asyncio.timeout(limit_s) as limit, rig() as one:
            given = True
            await case.run(one)
    except UnsupportedHere as reason:
        return Verdict.UNSUPPORTED, str(reason)
    except NotReached as reason:
        return Verdict.NOT_REACHED, str(reason)
    except TimeoutError as error:
        return Verdict.FAILED, f"it did not end within {limit_s:.0f} s" if limit.expired() else explain(error)
    except Retryable as error:
        return (Verdict.FAILED, explain(error)) if given else (Verdict.NOT_REACHED, str(error))
    except Unsupported as error:
        return (Verdict.UNSUPPORTED, str(error)) if suite.family == "storage" else (Verdict.FAILED, explain(error))
    except Exception as error:
        return Verdict.FAILED, explain(error)
    return Verdict.PROVEN, ""
