"""A simulation that begins in the middle of a cloud's life: its hosts have what a file says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.ids import new_id, on_host
from core.settings import DriverSettings
from core.states import InstanceKind, PowerState
from drivers.fake_host import connect
from drivers.fake_world import world
from drivers.transport.base import Endpoint


@pytest.fixture(autouse=True)
def _empty_world() -> Iterator[None]:
    world.reset()
    yield
    world.reset()


async def test_what_is_planted_runs_from_the_start_and_only_once(tmp_path: Path) -> None:
    row_id, file = new_id(), tmp_path / "planted.json"
    file.write_text(json.dumps({"images": {"ab" * 32: 7}, "hosts": {"h1": [[row_id, "container", 0.5, 256]]}}))
    settings = DriverSettings(simulated_instances=str(file))
    endpoint = Endpoint("h1", "10.0.0.1", 22, "root", tmp_path / "key", "")
    host = await connect(endpoint, settings)
    (seen,) = await host.hypervisor.instances()
    assert (seen.name, seen.power, seen.instance_id) == (on_host(row_id), PowerState.RUNNING, row_id)
    assert (seen.kind, seen.cpus, seen.memory_mib) == (InstanceKind.CONTAINER, 0.5, 256)
    assert list(world.hosts["h1"].images) == ["ab" * 32]
    await host.hypervisor.stop(seen.name, grace_s=0)
    await host.hypervisor.undefine(seen.name)
    again = await connect(endpoint, settings)
    assert list(await again.hypervisor.instances()) == []
    assert list(await (await connect(Endpoint("h2", "10.0.0.2", 22, "root", tmp_path / "key", ""), settings))
                .hypervisor.instances()) == []  # fmt: skip
