"""Progress of operations, step by step with elapsed time: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rackflow_cli.session import paint, session
from rackflow_cli.words import duration, seconds_between

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Operation = Mapping[str, Any]

FEW = 12  # so many get a line each
_FEW_ENDED = 5  # tell a pace
MANY = 30  # from here on only failures are told one by one
_HEARTBEAT_S = 10.0
_MARKS = {"done": ("✓", "green"), "cancelled": ("-", "yellow")}
_BAD = ("✗", "red")
_WORKING = {"pending", "running", "compensating"}


def subject(op: Operation) -> str:
    """Return what an operation is about, by name."""
    return str(op.get("name") or op.get("subject_name") or op.get("subject") or op.get("id"))


def place(op: Operation) -> str:
    """Return the host on which it happens, "" while there is none."""
    hosts = [step["host"] for step in op.get("steps", ()) if step.get("host")]
    return str(hosts[-1]) if hosts else ""


def took(op: Operation) -> str:
    """Return how long an operation has taken since it was asked for."""
    return duration(seconds_between(op.get("created_at") or op.get("started_at"), op.get("finished_at")))


def left(op: Operation) -> str:
    """Return how much longer it will take, "" where that is not known."""
    return f"about {duration(op['left_s'])} left" if op.get("left_s") else ""


def doing(op: Operation) -> str:
    """Return what happens now: the step with its share done, else why it waits."""
    if op["state"] == "pending":
        return f"waiting: {op['reason']}" if op.get("reason") else "waiting"
    running = [step for step in op.get("steps", ()) if step.get("state") == "running"]
    if not running:
        return "undoing" if op["state"] == "compensating" else "next step"
    step = running[-1]
    said = str(step["name"]) + _share(step.get("evidence") or {})
    attempt = int(step.get("attempt") or 1)
    return said + (f" (attempt {attempt})" if attempt > 1 else "")


def _share(evidence: Mapping[str, Any]) -> str:
    done, total = evidence.get("bytes_done"), evidence.get("bytes_total")
    return f" {100 * done // total}%" if isinstance(done, int) and isinstance(total, int) and total else ""


def past(op: Operation) -> str:
    """Return the steps that are done, with their durations."""
    done = [step for step in op.get("steps", ()) if step.get("state") == "done"]
    times = ((s["name"], seconds_between(s.get("started_at"), s.get("finished_at"))) for s in done)
    return ", ".join(f"{name} {duration(seconds)}" for name, seconds in times)


def ending(op: Operation) -> str:
    """Return the line that tells how an operation ended."""
    mark, style = _MARKS.get(str(op["state"]), _BAD)
    where = f" on {place(op)}" if place(op) else ""
    how = "" if op["state"] == "done" else f": {op['state']}"
    steps = paint(f"  ({past(op)})", "dim", sys.stderr) if past(op) else ""
    return f"{paint(mark, style, sys.stderr)} {op['verb']} {subject(op)}{where}{how} {took(op)}{steps}"


class Reporter:
    """Says nothing: for --quiet, and the base of the others."""

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def update(self, operations: Sequence[Operation]) -> None:
        """Take in how the operations stand."""

    def say(self, text: str) -> None:
        """Tell something beside the operations."""


class PlainReporter(Reporter):
    """One line for each thing that happens."""

    def __init__(self, total: int) -> None:
        self.total, self._told, self._beat = total, dict[str, str](), time.monotonic()

    def update(self, operations: Sequence[Operation]) -> None:
        for op in operations:
            said = self._line(op)
            if said and self._told.get(op["id"]) != said:
                self._told[op["id"]] = said
                self.say(f"{op['verb']} {subject(op)}: {said}" if op["state"] in _WORKING else ending(op))
        if time.monotonic() - self._beat > _HEARTBEAT_S:
            self._beat = time.monotonic()
            self.say(summary(operations) + pace(operations))

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def _line(self, op: Operation) -> str:
        if op["state"] not in _WORKING:
            return "" if self.total > MANY and op["state"] == "done" else str(op["state"])
        now = doing(op)
        if self.total > FEW or now in ("next step", "waiting"):
            return ""
        return now.split("%")[0].rstrip("0123456789 ") + (f" on {place(op)}" if place(op) else "")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.total > MANY and kind is None:
            ended = sum(1 for state in self._told.values() if state)
            self.say(f"{self.total - ended} of {self.total} done")


class LiveReporter(Reporter):
    """A line with a spinner for each of a few, a bar for many; what has ended stays above as plain lines."""

    def __init__(self, total: int, console: Console) -> None:
        from rich.live import Live
        from rich.spinner import Spinner

        self.total, self._console = total, console
        self._operations: Sequence[Operation] = ()
        self._ended: set[str] = set()
        self._note = ""
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> Reporter:
        self._live.start(refresh=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._live.stop()
        if self.total > MANY and kind is None:
            self._console.print(summary(self._operations))

    def update(self, operations: Sequence[Operation]) -> None:
        self._operations, self._note = operations, ""
        for op in operations:
            if op["state"] not in _WORKING and op["id"] not in self._ended:
                self._ended.add(op["id"])
                if self.total <= MANY or op["state"] != "done":
                    self._tell(ending(op))

    def say(self, text: str) -> None:
        self._note = text

    def _tell(self, line: str) -> None:
        from rich.text import Text

        self._console.print(Text.from_ansi(line))

    def _draw(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        working = [op for op in self._operations if op["state"] in _WORKING]
        shown = sorted(working, key=lambda op: op["state"] == "pending")[:FEW]
        grid = Table.grid(padding=(0, 2, 0, 0))
        for op in shown:
            grid.add_row(self._spinner, f"{op['verb']} {subject(op)}", place(op), doing(op), took(op), left(op))
        parts: list[RenderableType] = [grid]
        if self.total > FEW:
            bar = Table.grid(padding=(0, 2, 0, 0))
            said = summary(self._operations) + pace(self._operations)
            bar.add_row(ProgressBar(self.total, self.total - len(working), width=30), said)
            parts.insert(0, bar)
        if self._note:
            parts.append(self._note)
        return Group(*parts)


def summary(operations: Iterable[Operation]) -> str:
    """Return e.g. "12 of 40 done, 1 failed, 27 going on"."""
    states = [op["state"] for op in operations]
    working, done = sum(s in _WORKING for s in states), states.count("done")
    said = [f"{done} of {len(states)} done"]
    said += [f"{len(states) - working - done} failed"] if len(states) - working - done else []
    said += [f"{working} going on"] if working else []
    return ", ".join(said)


def pace(operations: Sequence[Operation]) -> str:
    """Return at which steps those of many are, and how much longer all will take at the pace they had so far."""
    at = Counter(doing(op).split(" ")[0] for op in operations if op["state"] == "running")
    said = f" ({', '.join(f'{step} {count}' for step, count in at.most_common(4))})" if at else ""
    left_s = seconds_left(operations)
    return said + (f", about {duration(left_s)} left" if left_s is not None else "")


def seconds_left(operations: Sequence[Operation]) -> float | None:
    """Return the seconds that all still take: as the longest of those that run, or at the pace of those that ended.

    None where neither history nor a few that ended tell.
    """
    running = [op["left_s"] for op in operations if op["state"] in _WORKING and op.get("left_s")]
    ended = sum(op["state"] not in _WORKING for op in operations)
    begun = min((op["created_at"] for op in operations if op.get("created_at")), default=None)
    elapsed = seconds_between(begun, None)
    by_pace = elapsed / ended * (len(operations) - ended) if elapsed and ended >= _FEW_ENDED else 0.0
    return max([*running, by_pace]) or None if running or by_pace else None


def reporter_for(operations: Sequence[Operation]) -> Reporter:
    """Return the reporter that suits: none when quiet, live on a terminal, else plain."""
    if session.quiet or not operations:
        return Reporter()
    if not session.colors(sys.stderr):
        return PlainReporter(len(operations))
    from rich.console import Console

    return LiveReporter(len(operations), Console(stderr=True, highlight=False, markup=False, emoji=False))
