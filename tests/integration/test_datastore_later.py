"""A datastore that is made when hosts are enrolled already."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from blueprints.datastore import DatastoreSpec
from control import datastores
from core.states import Verb
from drivers.fake_world import world
from tests.integration.line import Line, make_line, without_prefect


@pytest.fixture(autouse=True)
def _no_prefect() -> Iterator[None]:
    with without_prefect():
        yield


async def test_it_is_prepared_by_the_next_look(tmp_path: Path) -> None:
    line: Line = await make_line(tmp_path, 2)
    spec = DatastoreSpec(name="late", path="/srv/late")
    line.store.write_now(lambda c: datastores.ensure(c, line.admin, spec))
    await line.run(Verb.RECONCILE, {"hosts": []})
    assert {host.store("/srv/late").prepared for host in world.hosts.values()} == {True}
    shown = line.store.read_now(lambda c: datastores.show(c, line.admin, "late"))
    assert len(shown["hosts"]) == 2
