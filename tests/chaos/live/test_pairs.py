"""Verbs and faults on real hosts: a few by a seed; with RACKFLOW_CHAOS_ALL each pair once (scripts/chaos --live)."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from bench.cloud import Cloud
from core.states import InstanceKind
from tests.chaos.live.faults import LiveFault
from tests.chaos.live.pairs import Pair, all_pairs, run
from tests.chaos.live.section import RESULTS
from tests.chaos.report import Results
from tests.labs import Lab

SEED = int(os.environ.get("RACKFLOW_CHAOS_SEED", "1"))
SHARD = os.environ.get("RACKFLOW_CHAOS_SHARD", "1/1")
ALL = os.environ.get("RACKFLOW_CHAOS_ALL") == "1"
ONLY = os.environ.get("RACKFLOW_CHAOS_ONLY", "")
MINUTES = float(os.environ.get("RACKFLOW_CHAOS_MINUTES", "0"))
BEGAN = time.monotonic()


OTHERS_SHOW = {LiveFault.WORKER, LiveFault.POWER, LiveFault.SSH}  # tests/live disturbs guests in these ways as well


def chosen() -> list[Any]:
    """Return all of this shard, or one for each fault on a container, slow where other tests show the like."""
    pairs = [pair for pair in all_pairs(SEED) if ONLY in pair.name]
    if ALL:
        first, of = (int(part) for part in SHARD.split("/"))
        return [pytest.param(pair, id=pair.name) for pair in pairs[first - 1 :: of]]
    quick = [pair for pair in pairs if pair.kind is InstanceKind.CONTAINER]
    few = [next(pair for pair in quick if pair.fault is fault) for fault in LiveFault]
    return [
        pytest.param(pair, id=pair.name, marks=[pytest.mark.slow] * (pair.fault in OTHERS_SHOW)) for pair in few
    ]


@pytest.mark.parametrize("pair", chosen())
def test_all_is_well_in_the_end(pair: Pair, front_end: Cloud, lab: Lab) -> None:
    if not ALL:
        assert run(pair, front_end, lab).wrong == {}
        return
    results = Results(RESULTS, os.environ["RACKFLOW_CHAOS_CODE"])
    if pair.name in results.read():
        pytest.skip("an earlier run has its outcome")
    if MINUTES and time.monotonic() - BEGAN > MINUTES * 60:
        pytest.skip("the time is over")
    outcome = run(pair, front_end, lab)
    results.add(outcome)
    assert outcome.wrong == {}
