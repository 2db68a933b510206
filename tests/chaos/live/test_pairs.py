"""Verbs and faults on real hosts: a few by a seed; with RACKFLOW_CHAOS_ALL each pair once (scripts/chaos --live)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.cloud import Cloud
from tests.chaos.live.faults import LiveFault
from tests.chaos.live.pairs import Pair, all_pairs, run, shard
from tests.chaos.report import Results
from tests.labs import Lab

SEED = int(os.environ.get("RACKFLOW_CHAOS_SEED", "1"))
SHARD = os.environ.get("RACKFLOW_CHAOS_SHARD", "1/1")
ALL = os.environ.get("RACKFLOW_CHAOS_ALL") == "1"
ONLY = os.environ.get("RACKFLOW_CHAOS_ONLY", "")
RESULTS = Path(__file__).resolve().parents[3] / "build" / "chaos" / "live.jsonl"


def chosen() -> list[Pair]:
    """Return all of this shard, or one for each fault and one more."""
    pairs = [pair for pair in all_pairs(SEED) if ONLY in pair.name]
    if ALL:
        return list(shard(pairs, *(int(part) for part in SHARD.split("/"))))
    first = {fault: next(pair for pair in pairs if pair.fault is fault) for fault in LiveFault if not ONLY}
    return list(first.values()) or pairs


@pytest.mark.parametrize("pair", chosen(), ids=lambda pair: pair.name)
def test_all_is_well_in_the_end(pair: Pair, front_end: Cloud, lab: Lab) -> None:
    outcome = run(pair, front_end, lab)
    if ALL:
        Results(RESULTS, os.environ["RACKFLOW_CHAOS_CODE"]).add(outcome)
    assert outcome.wrong == {}
