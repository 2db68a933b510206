"""Version 1, version 2 and the mixture are told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import cgroups
from lab.cgroups import Cgroups, detect


def machine(tmp_path: Path, folders: list[str], own: str) -> Cgroups:
    for folder in folders:
        (tmp_path / "fs" / folder).mkdir(parents=True)
    (tmp_path / "own").write_text(own)
    return detect(tmp_path / "fs", tmp_path / "own")


def test_version_2(tmp_path: Path) -> None:
    (tmp_path / "fs").mkdir()
    (tmp_path / "fs/cgroup.controllers").write_text("cpu memory pids\n")
    assert machine(tmp_path, [], "0::/user.slice\n") == Cgroups(2, (".",))


def test_version_1_with_unified_beside_it(tmp_path: Path) -> None:
    own = "5:name=systemd:/\n4:cpu,cpuacct:/a\n3:memory:/\n0::/\n"
    found = machine(tmp_path, ["systemd", "cpu,cpuacct", "memory", "unified"], own)
    assert found == Cgroups(1, ("systemd", "cpu,cpuacct", "memory", "unified"))


def test_a_tree_that_is_not_mounted_is_left_out(tmp_path: Path) -> None:
    assert machine(tmp_path, ["memory"], "3:memory:/\n2:net_prio:/\n") == Cgroups(1, ("memory",))


@pytest.mark.parametrize(
    ("version", "top", "name", "frozen", "free"),
    [(1, "freezer/rf-h1", "freezer.state", "FROZEN", "THAWED"), (2, "rf-h1", "cgroup.freeze", "1", "0")],
)
def test_what_a_host_has_frozen_is_thawed_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, top: str, name: str, frozen: str, free: str
) -> None:
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    files = [tmp_path / top / name, tmp_path / top / "lxc.payload.c1" / name]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(frozen)
    cgroups.thaw(Cgroups(version, (".",)), "h1")
    assert [file.read_text() for file in files] == [free, free]
