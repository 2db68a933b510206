"""What a case is, how it says that something cannot be proven here, and the suites that hold them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, NoReturn, TypeVar

R = TypeVar("R")
E = TypeVar("E", bound=BaseException)
Run = Callable[[R], Awaitable[None]]


class NotProven(Exception):
    """Not a failure: why a case says nothing about this driver."""


class UnsupportedHere(NotProven):
    """The driver does not claim to be able to do it."""


class NotReached(NotProven):
    """The driver may be able to do it, but something is missing here to try."""


def unsupported(reason: str) -> NoReturn:
    """End a case: the driver does not claim to be able to do this."""
    raise UnsupportedHere(reason)


def not_reached(reason: str) -> NoReturn:
    """End a case: what it takes to try it is not here."""
    raise NotReached(reason)


def fail(reason: str) -> NoReturn:
    """End a case: the driver did wrong."""
    raise AssertionError(reason)


class Raised(Generic[E]):
    """A context whose body must raise one of these errors; `value` is what was raised."""

    value: E

    def __init__(self, *wanted: type[E]) -> None:
        self._wanted = wanted

    def __enter__(self) -> Raised[E]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        names = " or ".join(one.__name__ for one in self._wanted)
        if error is None:
            fail(f"no {names} was raised")
        if isinstance(error, self._wanted):
            self.value = error
            return True
        if isinstance(error, AssertionError) or not isinstance(error, Exception):
            return False  # a check inside failed, or the case itself is ended
        raise AssertionError(f"{names} was to be raised, not {type(error).__name__}: {error}") from error


def raises(*wanted: type[E]) -> Raised[E]:
    """Check that the body of a `with` raises one of these errors."""
    return Raised(*wanted)


@dataclass(frozen=True)
class Case(Generic[R]):
    """One thing that a driver must do. proves: the verbs and capabilities that it says something about."""

    name: str
    proves: tuple[str, ...]
    run: Run[R]

    @property
    def title(self) -> str:
        """Return its name in words."""
        return self.name.replace("_", " ")


class Suite(Generic[R]):
    """The cases of a family, in their order, all for the same kind of rig."""

    def __init__(self, family: str, verbs: tuple[str, ...]) -> None:
        self.family = family
        self.verbs = verbs
        self.cases: list[Case[R]] = []

    def case(self, *proves: str) -> Callable[[Run[R]], Run[R]]:
        """Add a function as a case that says something about these verbs."""
        unknown = set(proves) - set(self.verbs)
        if unknown or not proves:
            raise ValueError(f"{self.family} has no verbs {sorted(unknown)}; a case names what it proves")

        def add(run: Run[R]) -> Run[R]:
            self.cases.append(Case(run.__name__, proves, run))
            return run

        return add
