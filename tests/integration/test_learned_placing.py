"""From planted history through learning and judging to the host that a real deployment goes to."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from analytics import failures
from analytics.backtest import backtest
from analytics.capacity import Features
from analytics.database import Database, Limits
from analytics.learn import learn
from analytics.record import insert_outbox
from bench import planted
from control import decisions
from core.states import Verb
from tests.integration.line import Line

HOSTS = ("f0", "f1", "f2")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "history.duckdb", Limits(memory_mib=128))
    yield opened
    opened.close()


class Owner:
    """The history's owner, without a process of its own."""

    def __init__(self, database: Database) -> None:
        self._features = Features(database)

    def features(self) -> dict[str, Any]:
        return self._features.get()


def plant(database: Database, bad: str | None) -> None:
    """Plant four weeks of starts; on the bad host one in four failed."""
    dice = random.Random(3)
    rows = []
    for number in range(1, 4001):
        host = dice.choice(HOSTS)
        outcome = "host-fault" if dice.random() < (0.25 if host == bad else 0.02) else "done"
        at = planted.AT - timedelta(days=20 * dice.random())
        rows.append(planted.step(number, at, "start", host, "box", dice.lognormvariate(0, 0.3), outcome))
    insert_outbox(database, rows)
    learn(database, planted.AT, failures.OF_HOSTS)
    backtest(database, planted.AT, [failures.OF_HOSTS])


async def deployed(line: Line, database: Database) -> tuple[str, dict[str, Any]]:
    """Return where an instance went, and why."""
    line.runtime.analytics = Owner(database)  # type: ignore[assignment]
    ended = await line.run(Verb.DEPLOY, {"instances": [{"name": "web", "image": "box", "cpu": 1, "memory": 512}]})
    assert not ended[0].error
    shown = line.instance("web")
    return shown["host"], line.store.read_now(lambda c: decisions.newest(c, shown["id"]))


async def test_of_hosts_that_are_alike_one_that_fails_often_comes_last(line: Line, database: Database) -> None:
    plant(database, "f0")
    host, told = await deployed(line, database)
    assert host != "f0", "which comes first by name"
    parts = {entry["host"]: entry["parts"]["failure"] for entry in told["hosts"]}
    assert parts["f0"] == pytest.approx(0.5 * 0.25, abs=0.03)
    assert max(parts["f1"], parts["f2"]) < 0.02


async def test_where_no_host_is_worse_failures_say_nothing(line: Line, database: Database) -> None:
    plant(database, None)
    host, told = await deployed(line, database)
    assert host == "f0"
    assert all(not entry["parts"].get("failure") for entry in told["hosts"])
