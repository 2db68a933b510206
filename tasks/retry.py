"""The one place that decides what an error means for a step: again, elsewhere, give up, or ask the operator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from core.clock import now
from core.errors import HostFault, NeedsOperator, NoCapacityNow, RackflowError, Retryable, Unreachable
from core.states import Verb

T = TypeVar("T")
STEP_ATTEMPTS = 3
# Somebody waits for these and can ask again; the others wait for their host as long as it takes.
GIVE_UP_AFTER = {  # runs, each with STEP_ATTEMPTS tries
    **dict.fromkeys((Verb.ENROLL, Verb.ENROLL_MACHINE, Verb.CHANGE_MACHINE), 1),
    **dict.fromkeys((Verb.RESIZE, Verb.ATTACH_DISK, Verb.GROW_DISK, Verb.ATTACH_NIC, Verb.RENAME), 1),
    **dict.fromkeys((Verb.IMPORT, Verb.DETACH_DISK, Verb.DETACH_NIC, Verb.SNAPSHOT, Verb.REBOOT), 2),
    **dict.fromkeys((Verb.STAGE, Verb.MIGRATE, Verb.MIGRATE_LIVE, Verb.SAVE_IMAGE, Verb.BACKUP), 3),
    **dict.fromkeys((Verb.SLEEP, Verb.WAKE), 2),
}
PLACES = 3  # hosts tried for one deployment before it is given up


def is_retryable(error: BaseException) -> bool:
    """Say whether the same step on the same host may succeed when tried again at once."""
    return isinstance(error, Retryable) and not isinstance(error, NoCapacityNow)


async def retrying(action: Callable[[], Awaitable[T]], *, attempts: int = STEP_ATTEMPTS) -> T:
    """Run action, again after a jittered pause while its error is retryable; raise the last error.

    Nearly all go well at once, and tenacity takes a fifth of what a step costs: it comes in after an error.
    """
    try:
        return await action()
    except Exception as error:
        if not is_retryable(error):
            raise
        first = [error]
    async for attempt in AsyncRetrying(
        retry=retry_if_exception(is_retryable), stop=stop_after_attempt(attempts),
        wait=wait_random_exponential(multiplier=0.5, max=5), reraise=True,
    ):  # fmt: skip
        with attempt:
            if first:
                raise first.pop()
            return await action()
    raise AssertionError("unreachable: tenacity reraises")


async def stage_may_retry(task: Any, task_run: Any, state: Any) -> bool:
    """Prefect's retry condition for a stage: the same predicate as for a step."""
    try:
        await state.aresult()
    except Exception as error:
        return is_retryable(error)
    return False


def is_hosts_fault(error: RackflowError) -> bool:
    """Say whether another host may do better (one#5540: a host's error must not fail the instance)."""
    return isinstance(error, Unreachable | HostFault | NeedsOperator) or is_retryable(error)


def later(attempts: int) -> datetime:
    """Return when an operation is tried again: 2, 4, 8 … 60 s from now."""
    return now() + timedelta(seconds=min(60, 2 ** min(attempts, 6)))
