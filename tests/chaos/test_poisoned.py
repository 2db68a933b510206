"""An instance that fails for its own reasons keeps no other waiting. The exact figure: scripts/chaos."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.poisoned import POISONS, Poisoned


@pytest.fixture(scope="module")
def runs() -> Iterator[Poisoned]:
    with Poisoned(good=40) as found:
        yield found


@pytest.mark.parametrize("poison", POISONS)
def test_the_others_do_not_wait_for_it(runs: Poisoned, poison: str) -> None:
    ratios = (runs.ratio(poison, pairs=1) for _ in range(3))  # what else the machine does disturbs one pair or other
    assert any(ratio < 1.3 for ratio in ratios)
