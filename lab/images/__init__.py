"""Guest images, built from the distribution's packages and cached; built again only when their recipe changed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from core.errors import HostFault
from lab.settings import LabSettings

_HERE = Path(__file__).parent
TINY_KERNEL, TINY_INITRD = "tiny.vmlinux", "tiny.initrd"  # for microVMs
TINY, BUSYBOX, HYPERVISOR = "tiny.qcow2", "busybox.tar.gz", "hypervisor.raw.zst"
RAMDISK, AGENT = ("ramdisk.vmlinuz", "ramdisk.gz"), ("agent.vmlinuz", "agent.zst")


@dataclass(frozen=True)
class Recipe:
    """script makes files; folder holds what goes into them."""

    script: str
    files: tuple[str, ...]
    folder: str = ""


RECIPES: dict[str, tuple[Recipe, ...]] = {
    "tiny": (Recipe("tiny.sh", (TINY, TINY_KERNEL, TINY_INITRD), "tiny"), Recipe("busybox.sh", (BUSYBOX,), "busybox")),
    "debian": (Recipe("debian.sh", ("debian.qcow2", "debian.tar.zst"), "debian"),),
    "ramdisk": (Recipe("ramdisk.sh", RAMDISK, "ramdisk"),),
    "agent": (Recipe("agent.sh", AGENT, "agent"),),
    "hypervisor": (Recipe("hypervisor.sh", (HYPERVISOR,), "debian"),),
}


def image_path(settings: LabSettings, file: str) -> Path:
    """Return where a built image lies."""
    return settings.cache / file


def build(settings: LabSettings, name: str) -> bool:
    """Make the images of that name ("tiny" or "debian") unless they are there; False then. Raise HostFault."""
    settings.cache.mkdir(parents=True, exist_ok=True)
    with (settings.cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = [_build(settings, recipe) for recipe in RECIPES[name]]  # all of them, not up to the first
    return any(built)


def _build(settings: LabSettings, recipe: Recipe) -> bool:
    stamp = settings.cache / f".{recipe.script}.stamp"
    digest = _digest(recipe)
    made = all(image_path(settings, file).exists() for file in recipe.files)
    if made and stamp.exists() and stamp.read_text() == digest:
        return False
    log = settings.cache / f"{recipe.script}.log"
    with log.open("wb") as out:
        argv = ["bash", str(_HERE / recipe.script), str(settings.cache)]
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
        )  # fmt: skip
    if done.returncode != 0:
        said = " / ".join(log.read_text(errors="replace").splitlines()[-4:])
        raise HostFault(f"{recipe.script} did not make {', '.join(recipe.files)}: {said}", "lab", fix=f"see {log}")
    stamp.write_text(digest)
    return True


def _digest(recipe: Recipe) -> str:
    """Return a hash of all that decides what is built, without the machine's package versions."""
    sources = [_HERE / recipe.script, _HERE / "common.sh"]
    if recipe.folder:
        sources += sorted(path for path in (_HERE / recipe.folder).rglob("*") if path.is_file())
    total = hashlib.sha256()
    for path in sources:
        total.update(f"{path.relative_to(_HERE)}\n".encode() + path.read_bytes())
    return total.hexdigest()
