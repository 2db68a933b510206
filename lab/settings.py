"""Where the lab lives and how it is numbered; from LAB_* variables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

# Folders of a plain root file system. Others at the top (/opt, /mnt, …) are this machine's own and hidden from hosts.
_PLAIN_ROOT = {
    "bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "proc", "root", "run", "sbin", "srv", "sys",
    "tmp", "usr", "var",
}  # fmt: skip
SWITCH = "rfsw"  # network namespace that plays the switch
OWNER_FILE = Path("/run/rackflow-lab")  # holds the LAB_DIR of the lab whose namespaces exist


@dataclass(frozen=True)
class LabSettings:
    """One lab. net: the first two octets of all its networks; bmc_port: where its BMCs listen on loopback."""

    dir: Path
    shared: Path
    cache: Path
    net: str = "198.18"
    disk: str = "20G"
    hide: tuple[str, ...] = ()
    bmc_port: int = 4220

    @property
    def key(self) -> Path:
        return self.dir / "id_ed25519"

    def management(self, last: int) -> str:
        """Return an address of the management network; .1 is this machine."""
        return f"{self.net}.16.{last}"

    def data(self, last: int) -> str:
        """Return an address of the data network, where VMs live on br0; .1 is this machine."""
        return f"{self.net}.17.{last}"

    def containers(self, number: int) -> str:
        """Return the /24 behind lxcbr0 of host number N."""
        return f"{self.net}.{20 + number}.0/24"


def load() -> LabSettings:
    """Read LAB_DIR, LAB_SHARED, LAB_NET, LAB_DISK, LAB_HIDE, LAB_BMC_PORT and RACKFLOW_CACHE."""
    env = os.environ
    folder = Path(env.get("LAB_DIR") or "/var/tmp/rackflow-lab").resolve()
    home = Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    hide = env["LAB_HIDE"].split() if "LAB_HIDE" in env else _not_plain()
    return LabSettings(
        dir=folder,
        shared=Path(env.get("LAB_SHARED") or folder / "shared").resolve(),
        cache=Path(env.get("RACKFLOW_CACHE") or home / "rackflow" / "guests").resolve(),
        net=env.get("LAB_NET") or "198.18",
        disk=env.get("LAB_DISK") or "20G",
        hide=tuple(hide),
        bmc_port=int(env.get("LAB_BMC_PORT") or 4220),
    )


def _not_plain() -> list[str]:
    return sorted(str(p) for p in Path("/").iterdir() if p.is_dir() and p.name not in _PLAIN_ROOT)
