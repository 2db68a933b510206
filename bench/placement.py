"""Benchmark: the placement engine, CPU time of one thread, every answer checked; alone, and with SQLite around it."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from bench import rebalance, stored, synthetic, trace
from control.placement import engine


@dataclass(frozen=True)
class Case:
    """One row: what is placed where. repeats: each with a fresh view; the best one counts."""

    key: str
    unit: float  # figures per second
    pending: int
    hosts: int
    distinct: bool = False
    tell: bool = False
    repeats: int = 9


CASES = (
    Case("20k_x_2500_cpu_ms", 1e3, 20_000, 2_500),
    Case("20k_x_2500_told_cpu_ms", 1e3, 20_000, 2_500, tell=True),
    Case("100k_x_10k_cpu_ms", 1e3, 100_000, 10_000),
    Case("20k_distinct_cpu_s", 1.0, 20_000, 2_500, distinct=True, repeats=2),
    Case("one_x_2500_ms", 1e3, 1, 2_500, tell=True, repeats=30),
)
REBALANCE = "rebalance_s"
KEYS = [*(case.key for case in CASES), stored.KEY, REBALANCE]


def main() -> None:
    """Print a table and, as the last line, the figures as JSON."""
    parser = argparse.ArgumentParser(prog="scripts/bench placement", description=__doc__)
    parser.add_argument("--only", action="append", choices=KEYS, help="some of the figures")
    only = parser.parse_args().only or KEYS
    print(f"{'case':24} {'pending':>8} {'hosts':>7} {'shapes':>7} {'placed':>8} {'figure':>10} {'per second':>12}")
    figures: dict[str, float] = {}
    for case in CASES:
        if case.key in only:
            figures[case.key] = _run(case)
    if stored.KEY in only:
        figures |= _alone(stored.measure)
    if REBALANCE in only:
        figures |= rebalance.figures()
    if not parser.parse_args().only:
        figures |= trace.figures(print)
    used = (resource.getrusage(whose).ru_maxrss for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    figures["peak_rss_mib"] = max(used) // 1024
    print(json.dumps(figures))


def _run(case: Case) -> float:
    pending = synthetic.requests(case.pending, distinct=case.distinct)
    best, placed = float("inf"), 0
    for _ in range(case.repeats):
        view = synthetic.cloud(case.hosts)  # fresh: nothing of it is worked out yet
        seconds, choices = _cpu(lambda view=view: engine.choose(view, pending, tell=case.tell))  # type: ignore[misc]
        synthetic.check(view, choices)
        best, placed = min(best, seconds), sum(choice.host is not None for choice in choices)
    shapes, figure = len({request.shape for request in pending}), round(best * case.unit, 2)
    print(
        f"{case.key:24} {case.pending:8} {case.hosts:7} {shapes:7} {placed:8} {figure:10.2f} "
        f"{case.pending / best:12.0f}"
    )
    return figure


def _alone(call: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Measure in a process of its own, whatever the cases before it left in memory."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call).result()


def _cpu(call: Callable[[], Any]) -> tuple[float, Any]:
    before = time.process_time()
    answer = call()
    return time.process_time() - before, answer


if __name__ == "__main__":
    main()
