"""A history in a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from analytics.client import AnalyticsClient
from analytics.database import Database, Limits
from analytics.owner import AnalyticsOwner


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "history.duckdb", Limits(memory_mib=128))
    yield opened
    opened.close()


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[AnalyticsOwner]:
    limits = Limits(memory_mib=128, query_s=1.0)
    started = AnalyticsOwner(tmp_path / "history.duckdb", tmp_path / "a.sock", limits=limits, flush_s=0.05)
    started.start()
    yield started
    started.close()


@pytest.fixture
def client(owner: AnalyticsOwner, tmp_path: Path) -> Iterator[AnalyticsClient]:
    connected = AnalyticsClient(tmp_path / "a.sock")
    yield connected
    connected.close()
