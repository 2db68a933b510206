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
    assert runs.ratio(poison, pairs=1) < 1.3
