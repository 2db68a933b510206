"""Control groups of a host: one group rf-hN in every tree (version 1) or in the one tree (version 2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Cgroups:
    """What this machine has. trees: folders below /sys/fs/cgroup; "." alone is version 2."""

    version: int
    trees: tuple[str, ...]

    def folders(self, host: str) -> list[Path]:
        return [ROOT / tree / f"rf-{host}" for tree in self.trees]


def detect(root: Path = ROOT, own: Path = Path("/proc/self/cgroup")) -> Cgroups:
    """Say which version this machine runs; a mixed one counts as version 1 with the tree "unified"."""
    if (root / "cgroup.controllers").exists():
        return Cgroups(2, (".",))
    lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    trees = [controllers.removeprefix("name=") for _, controllers, _ in lines if controllers]
    if (root / "unified").is_dir():
        trees.append("unified")
    return Cgroups(1, tuple(tree for tree in trees if (root / tree).is_dir()))


def make(cgroups: Cgroups, host: str) -> None:
    """Make the host's groups; version 1 cpusets are born empty and need the parent's values."""
    if cgroups.version == 2:
        _delegate(ROOT)
    for folder in cgroups.folders(host):
        folder.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (folder.parent / name).exists() and cgroups.version == 1:
                (folder / name).write_text((folder.parent / name).read_text())


def drop(cgroups: Cgroups, host: str) -> None:
    """Remove the host's groups, deepest first; groups that are still in use stay."""
    for folder in cgroups.folders(host):
        for group in sorted(folder.rglob("*/"), key=lambda path: len(path.parts), reverse=True):
            _remove(group)
        _remove(folder)


def freeze(cgroups: Cgroups, host: str, *, off: bool) -> None:
    """Stop all processes of a host's groups, or let them go on."""
    if cgroups.version == 2:
        (ROOT / f"rf-{host}" / "cgroup.freeze").write_text(str(int(off)))
    else:
        _freezer(host).write_text("FROZEN" if off else "THAWED")


def thaw(cgroups: Cgroups, host: str) -> None:
    """Let all of a host's processes go on, also a container's that LXD had frozen to stop it when the power failed."""
    if cgroups.version == 2:
        top, name, word = ROOT / f"rf-{host}", "cgroup.freeze", "0"
    else:
        top, name, word = _freezer(host).parent, "freezer.state", "THAWED"
    for file in sorted(top.rglob(name), key=lambda path: len(path.parts)):
        with suppress(OSError):  # its group has just gone
            file.write_text(word)


def is_frozen(cgroups: Cgroups, host: str) -> bool:
    """Say whether all of a host's processes are stopped; False when it has no groups."""
    file = ROOT / f"rf-{host}" / "cgroup.events" if cgroups.version == 2 else _freezer(host)
    words = file.read_text().split() if file.exists() else []
    return words == ["FROZEN"] or ("frozen", "1") in pairwise(words)


def _freezer(host: str) -> Path:
    return ROOT / "freezer" / f"rf-{host}" / "freezer.state"


def left(cgroups: Cgroups) -> Iterator[Path]:
    """Yield the groups of hosts that exist."""
    for tree in cgroups.trees:
        yield from (ROOT / tree).glob("rf-h*/")


def _remove(group: Path) -> None:
    try:
        group.rmdir()
    except OSError:
        return


def _delegate(folder: Path) -> None:
    for controller in (folder / "cgroup.controllers").read_text().split():
        try:
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError:
            continue  # e.g. a real-time group in the way: hosts do without that controller
