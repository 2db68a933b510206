"""Stores on SQLite, PostgreSQL, MariaDB, and MySQL where RACKFLOW_TEST_MYSQL_URL names an empty database."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from control.store import Store
from control.tables import metadata
from tests.databases import servers
from tests.rig import Rig

BACKENDS = ("sqlite", "postgresql", "mariadb", "mysql")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("databases")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    if servers.postgres_bin() is None:
        pytest.skip("PostgreSQL is not installed")
    with servers.postgresql() as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[str]:
    if servers.mariadbd() is None:
        pytest.skip("MariaDB is not installed")
    with servers.mariadb() as url:
        yield url


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, backend: str, tmp_path: Path) -> str:
    """Return the URL of a database without tables."""
    if backend == "sqlite":
        return f"sqlite:///{tmp_path}/state.db"
    if backend == "postgresql":
        return servers.create_database(request.getfixturevalue("postgresql_server"), "postgres", "empty")
    if backend == "mariadb":
        return servers.create_database(request.getfixturevalue("mariadb_server"), "mysql", "empty")
    url = os.environ.get("RACKFLOW_TEST_MYSQL_URL")
    if not url:
        pytest.skip("MySQL: RACKFLOW_TEST_MYSQL_URL is not set")
    return url


@pytest.fixture
def opened() -> Iterator[Callable[[str], Store]]:
    """Return a function that opens stores, which are closed at the end."""
    stores: list[Store] = []

    def open_store(url: str) -> Store:
        stores.append(Store(url))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close_now()


@pytest.fixture(scope="session")
def migrated() -> dict[str, str]:
    """Return backend -> URL of the database that is migrated already."""
    return {}


@pytest.fixture
def url(
    request: pytest.FixtureRequest, backend: str, migrated: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Return the URL of a database with tables and no rows; migrated once per run and backend."""
    if backend not in migrated:
        if backend == "sqlite":
            fresh = f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/state.db"
        elif backend == "mysql":
            fresh = request.getfixturevalue("empty_url")
        else:
            server = request.getfixturevalue(f"{backend}_server")
            fresh = servers.create_database(server, {"mariadb": "mysql"}.get(backend, "postgres"), "state")
        store = Store(fresh)
        if backend == "mysql":
            store.migrate("base")
        store.migrate()
        store.close_now()
        migrated[backend] = fresh
    yield migrated[backend]
    store = Store(migrated[backend])
    store.write_now(_wipe)
    store.close_now()


def _wipe(c: sa.Connection) -> None:
    for table in reversed(metadata.sorted_tables):
        c.execute(sa.delete(table))


@pytest.fixture
def store(url: str, opened: Callable[[str], Store]) -> Store:
    return opened(url)


@pytest.fixture
def rig(store: Store) -> Rig:
    return Rig(store.write_now)
