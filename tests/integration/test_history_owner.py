"""The history's owner is killed again and again while events come in: each reaches the file, and once only."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analytics.client import AnalyticsClient
from analytics.database import Database, Limits, rows_of
from control import outbox
from control.store import Store
from core.errors import Unreachable
from tests.rig import Rig

KILLS, EVENTS, BATCH = 5, 6000, 50


def start(folder: Path) -> subprocess.Popen[bytes]:
    env = {**os.environ, "RACKFLOW_DATA_DIR": str(folder), "RACKFLOW_RUN_DIR": str(folder / "run"),
           "RACKFLOW_DATABASE_URL": f"sqlite:///{folder}/state.db"}  # fmt: skip
    return subprocess.Popen([sys.executable, "-m", "daemon", "analytics"], env=env, cwd=Path(__file__).parents[2])


def wait_until_answers(client: AnalyticsClient, owner: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            client.status()
            return
        except Unreachable:
            assert owner.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)


def test_killed_it_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    store = Store(f"sqlite:///{tmp_path}/state.db")
    store.migrate()
    client = AnalyticsClient(tmp_path / "run" / "analytics.sock")
    chance = random.Random(5)
    owner = start(tmp_path)
    try:
        written = 0
        for _ in range(KILLS):
            wait_until_answers(client, owner)
            kill_at = time.monotonic() + chance.uniform(0.05, 1.5)
            while time.monotonic() < kill_at and written < EVENTS:
                numbers = range(written, written + BATCH)
                batch = [("lifecycle", f"instance/i{n}", {"from": "a", "to": "b"}) for n in numbers]
                store.write_now(lambda c, batch=batch: outbox.emit_all(c, batch))  # type: ignore[misc]
                written += BATCH
            owner.send_signal(signal.SIGKILL)
            owner.wait()
            with pytest.raises(Unreachable):
                client.features()
            owner = start(tmp_path)
        wait_until_answers(client, owner)
        client.flush()
        assert store.read_now(lambda c: outbox.unmoved(c, 1)) == []
    finally:
        owner.terminate()
        assert owner.wait(timeout=20) == 0
        store.close_now()
    database = Database(tmp_path / "history.duckdb", Limits())
    with database.read() as cursor:
        counts = "count(*) AS n, count(DISTINCT outbox_id) AS ids, count(DISTINCT subject) AS s"
        [seen] = rows_of(cursor, f"SELECT {counts} FROM events")
    database.close()
    assert written > 1000
    assert seen == {"n": written, "ids": written, "s": written}


def test_it_samples_pools(tmp_path: Path) -> None:
    """A fresh cloud has no host yet, but a network to give addresses of."""
    (tmp_path / "run").mkdir()
    store = Store(f"sqlite:///{tmp_path}/state.db")
    store.migrate()
    Rig(store.write_now).network()
    client = AnalyticsClient(tmp_path / "run" / "analytics.sock")
    owner = start(tmp_path)
    try:
        wait_until_answers(client, owner)
        until = time.monotonic() + 10
        while not (rows := client.query("SELECT network, leased FROM network_use")["rows"]):
            assert time.monotonic() < until
            time.sleep(0.1)
        assert rows == [["lan", 0.0]]
    finally:
        owner.terminate()
        assert owner.wait(timeout=20) == 0
        store.close_now()
