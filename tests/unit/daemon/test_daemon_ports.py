"""Ports: set, remembered, preferred, or any."""

from __future__ import annotations

import pytest

from core.errors import Conflict
from daemon.ports import PREFERRED, choose
from daemon.settings import AUTO

API, PREFECT = PREFERRED["api_port"], PREFERRED["prefect_port"]
BOTH_AUTO = {"api_port": AUTO, "prefect_port": AUTO}


def pick(wanted: dict[str, int], remembered: dict[str, int], busy: set[int]) -> tuple[int, int]:
    free = iter(range(50000, 60000))
    found = choose(wanted, remembered, lambda port: port not in busy, lambda: next(free))
    return found["api_port"], found["prefect_port"]


def test_the_preferred_ports_are_taken_when_they_are_free() -> None:
    assert pick(BOTH_AUTO, {}, set()) == (API, PREFECT)


def test_a_busy_preferred_port_gives_way_to_any_free_one() -> None:
    assert pick(BOTH_AUTO, {}, {API}) == (50000, PREFECT)


def test_the_ports_of_last_time_are_taken_again_unless_they_are_busy() -> None:
    remembered = {"api_port": 51111, "prefect_port": 52222}
    assert pick(BOTH_AUTO, remembered, set()) == (51111, 52222)
    assert pick(BOTH_AUTO, remembered, {51111, API}) == (50000, 52222)


def test_a_port_that_was_set_is_taken_and_not_given_twice() -> None:
    assert pick({"api_port": PREFECT, "prefect_port": AUTO}, {}, set()) == (PREFECT, 50000)


def test_a_port_that_was_set_and_is_busy_is_an_error_that_says_how_to_change_it() -> None:
    with pytest.raises(Conflict, match=r"port 8080 .* RACKFLOW_API_PORT"):
        pick({"api_port": 8080, "prefect_port": AUTO}, {}, {8080})
