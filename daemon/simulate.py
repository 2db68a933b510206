"""`python -m daemon.simulate QUESTION`: what `rackflow simulate` starts. JSON in, JSON out, progress to a terminal."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import Any

from control.placement.model import Shape
from control.placement.weights import DEFAULT, check_policy
from control.simulation import arrivals
from control.simulation.answers import Question, answer, compare
from control.simulation.arrivals import Arrival
from control.simulation.fleet import Fleet, parse_group, parse_leaving, parse_network
from control.simulation.lives import Lives
from core import units
from core.errors import Invalid, RackflowError
from core.states import HostState

_BAR = 40  # characters


def run(asked: dict[str, Any]) -> dict[str, Any]:
    """Return {"replay"}, or {"answers": one for each policy, "learned": which predictions were good enough}."""
    return {"replay": _recorded(asked["policy"])} if asked["recorded"] else _simulated(asked)


def _recorded(policy: str) -> dict[str, Any]:
    from control import rounds
    from control.simulation.replay import replay
    from control.store import Store
    from daemon.settings import load

    if policy:
        check_policy(policy)
    settings = load()
    store = Store(settings.database_url)
    try:
        return replay(store.read_now(lambda c: list(rounds.rounds(c))), policy or None)
    finally:
        store.close_now()


def _simulated(asked: dict[str, Any]) -> dict[str, Any]:
    learned = _learned(asked["history"]) if asked["history"] else {"used": [], "lifetimes": {}}
    question = Question(
        _arrivals(asked["arrivals"]), _fleet(asked), asked["policy"] or DEFAULT, Lives(learned["lifetimes"]),
        asked["seed"],
        until_rejection=asked["until_rejection"], find_min_hosts=asked["find_min_hosts"], fit=_size(asked["fit"]),
    )  # fmt: skip
    bar = _Bar() if sys.stderr.isatty() and not asked["quiet"] else None
    try:
        answers = compare(question, bar) if asked["compare"] else [answer(question, bar)]
    finally:
        if bar is not None:
            bar.clear()
    return {"answers": answers, "learned": learned["used"]}


def _learned(file: str) -> dict[str, Any]:
    from analytics.arrivals import learn_lifetimes  # DuckDB takes a second to load

    return learn_lifetimes([_row(one) for one in _arrivals(file)])


def _arrivals(file: str) -> list[Arrival]:
    if file == "-":
        return arrivals.read(sys.stdin, "standard input")
    try:
        with open(file, encoding="utf-8", newline="") as lines:
            return arrivals.read(lines, file)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise Invalid(f"{file} cannot be read: {why}", f"file/{file}", {}, "name a CSV file") from error


def _fleet(asked: dict[str, Any]) -> Fleet:
    groups = [*map(parse_group, asked["hosts"])]
    for text in asked["add"]:
        group = parse_group(text)
        if group.from_s is None:
            raise Invalid(f"--add {text} does not say when", "hosts", {}, "write for example --add 10x64c/192GiB@36h")
        groups.append(group)
    leaving = [
        parse_leaving(text, state) for key, state in (("lose", HostState.FENCED), ("drain", HostState.DRAINING))
        for text in asked[key]
    ]  # fmt: skip
    return Fleet(tuple(groups), tuple(leaving), asked["spare"], tuple(map(parse_network, asked["networks"])))


def _size(text: str | None) -> Shape | None:
    if not text:
        return None
    try:
        cpu, memory, disk = (*text.split(","), "0")[:3] if text.count(",") < 3 else ("", "", "")
        return Shape("vm", math.ceil(float(cpu) * 1000), units.parse_mib(memory), units.parse_mib(disk))
    except (ValueError, Invalid) as error:
        fix = "write for example --fit 4,8GiB, or 4,8GiB,100GiB with a disk"
        raise Invalid(f"--fit {text!r} is no size", "fit", {}, fix) from error


def _row(one: Arrival) -> dict[str, Any]:
    lifetime_s = one.lifetime_s if math.isfinite(one.lifetime_s) else None
    return {
        "name": one.name, "arrival_s": one.arrival_s, "lifetime_s": lifetime_s, "cpu": one.cpu_m / 1000,
        "memory_mib": one.memory_mib, "owner": one.owner, "template": one.template,
    }  # fmt: skip


class _Bar:
    """How far it is, on a terminal; anew for each policy, and for each number of hosts that is tried."""

    def __init__(self) -> None:
        self._percent = -1

    def __call__(self, done: float) -> None:
        percent = int(100 * done)
        if percent != self._percent:
            self._percent = percent
            filled = percent * _BAR // 100
            print(f"\r[{'#' * filled}{' ' * (_BAR - filled)}] {percent:3} %", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave the line empty."""
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> int:
    """Print the answer, or {"error"}; return the exit code."""
    try:
        print(json.dumps(run(json.loads(argv[0]))))
        return 0
    except RackflowError as error:
        print(json.dumps({"error": error.to_dict()}))
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
