"""The front-end's store holds what the record says: a late worker's files go, those of what is parked stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.ids import new_id
from core.states import InstanceState, Verb
from drivers.fake_world import world
from drivers.storage.vault import Vault
from tasks.sweep import sweep_vaults
from tests.integration.line import Line


async def test_what_nobody_parked_goes_and_what_is_parked_stays(line: Line) -> None:
    for name in ("parked", "runs", "gone"):
        await line.run(Verb.DEPLOY, {"instances": [{"name": name, "image": "vm", "cpu": 1, "memory": 256}]})
    ids = {name: line.instance(name)["id"] for name in ("parked", "runs", "gone")}
    world.write(ids["parked"], "root", "precious")
    await line.run(Verb.UNDEPLOY, {"instances": ["parked"], "grace_s": 0})
    await line.run(Verb.BACKUP, {"instances": ["runs"], "backup": "one"})
    await line.run(Verb.DELETE, {"instances": ["gone"]})
    paths = line.settings.paths
    (backup,) = names(paths.backups_dir)
    for folder in (paths.parked_dir / ids["runs"], paths.parked_dir / ids["gone"], paths.backups_dir / new_id()):
        folder.mkdir()
        (folder / "root").write_text("late")
    (paths.parked_dir / f".{new_id()}.going").mkdir()  # of a call that was killed

    assert await sweep_vaults(line.runtime) == 3
    assert await sweep_vaults(line.runtime) == 0
    assert (names(paths.parked_dir), names(paths.backups_dir)) == ({ids["parked"]}, {backup})
    await line.run(Verb.START, {"instances": ["parked"]})
    assert line.instance("parked")["state"] == InstanceState.RUNNING
    assert world.read_disk(ids["parked"], "root") == "precious"


@pytest.mark.parametrize("under_way", [Verb.STOP, Verb.UNDEPLOY])
async def test_what_is_being_parked_is_left_alone(line: Line, under_way: Verb) -> None:
    await line.run(Verb.DEPLOY, {"instances": [{"name": "vm", "image": "vm", "cpu": 1, "memory": 256}]})
    line.submit(under_way, {"instances": ["vm"]})
    (line.settings.paths.parked_dir / line.instance("vm")["id"]).mkdir(parents=True)
    assert await sweep_vaults(line.runtime) == 0


def test_aside_comes_one_at_a_time(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    (tmp_path / "a").mkdir()
    assert vault.put_aside("a") is True
    (tmp_path / "a").mkdir()
    assert vault.put_aside("a") is False  # the one before is still being deleted
    assert vault.put_aside("b") is False


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
