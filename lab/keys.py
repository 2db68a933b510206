"""The lab's SSH key, every host's host key, and the files that let one enter."""

from __future__ import annotations

from pathlib import Path

from lab.settings import LabSettings
from lab.shell import run
from lab.topology import LabHost, Topology


def make_keys(settings: LabSettings, topology: Topology) -> None:
    """Make the keys that are not there yet."""
    _keygen(settings.key, "rackflow-lab")
    for host in topology.hosts:
        _keygen(host_key(settings, host), host.name)


def host_key(settings: LabSettings, host: LabHost) -> Path:
    """Return the path of a host's private host key."""
    return settings.dir / host.name / "hostkey"


def fingerprint(settings: LabSettings, host: LabHost) -> str:
    """Return "SHA256:…" of a host's key."""
    return run(["ssh-keygen", "-l", "-E", "sha256", "-f", f"{host_key(settings, host)}.pub"]).split()[1]


def write_access_files(settings: LabSettings, topology: Topology) -> None:
    """Write hosts (for /etc/hosts), known_hosts and ssh_config."""
    names = ["127.0.0.1 localhost", f"{settings.management(1)} ctl"]
    known: list[str] = []
    config = ["Host *", " User root", f" IdentityFile {settings.key}", " IdentitiesOnly yes",
              f" UserKnownHostsFile {settings.dir / 'known_hosts'}", " LogLevel ERROR"]  # fmt: skip
    for host in topology.hosts:
        address = settings.management(host.last_octet)
        public = " ".join(Path(f"{host_key(settings, host)}.pub").read_text().split()[:2])
        names.append(f"{address} {host.name}")
        known.append(f"{address},{host.name} {public}")
        config += [f"Host {host.name}", f" HostName {address}"]
    for name, lines in {"hosts": names, "known_hosts": known, "ssh_config": config}.items():
        (settings.dir / name).write_text("\n".join(lines) + "\n")


def _keygen(path: Path, comment: str) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])
