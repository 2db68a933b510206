"""An API without hosts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from analytics.database import Limits
from analytics.owner import AnalyticsOwner
from tests.unit.api.rig import Rig, make, make_template


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture
async def api(tmp_path: Path, template: tuple[Path, str]) -> AsyncIterator[Rig]:
    rig = make(tmp_path, template)
    yield rig
    await rig.client.aclose()
    await rig.app.state.context.close()
    await rig.store.close()


@pytest.fixture
def history(api: Rig) -> Iterator[AnalyticsOwner]:
    """Serve a history that reads the rig's outbox before each answer."""
    from control import outbox

    def pump() -> None:
        rows = api.store.read_now(outbox.unmoved)
        owner.insert_outbox(rows)
        api.store.write_now(lambda c: outbox.mark_moved(c, [row["id"] for row in rows]))

    paths = api.settings.paths
    owner = AnalyticsOwner(paths.duckdb_file, paths.analytics_socket, limits=Limits(memory_mib=128), pump=pump)
    yield owner
    owner.close()
