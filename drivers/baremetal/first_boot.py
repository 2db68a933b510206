"""What an installed disk is given before its first start: its name, its address, its host key, and who may enter. Pure.

Files for a Debian with systemd-networkd and OpenSSH (systemd.network(5), sshd_config(5)). The host key is made here, so
the front-end knows the machine from its first answer on: nothing is trusted on first use.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field

import asyncssh

_SECRET = frozenset({"etc/ssh/ssh_host_ed25519_key", "root/.ssh/authorized_keys"})


@dataclass(frozen=True)
class FirstBoot:
    """address: with its prefix, e.g. 10.0.0.5/24. mac: of the card that gets it."""

    hostname: str
    mac: str
    address: str
    authorized_key: str
    gateway: str = ""
    nameservers: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostKey:
    """public: as it is pinned; private: goes onto the disk and nowhere else."""

    public: str
    fingerprint: str
    private: str = field(repr=False)


def make_host_key() -> HostKey:
    """Make a new key."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    public = " ".join(key.export_public_key().decode().split()[:2])
    return HostKey(public, key.get_fingerprint(), key.export_private_key().decode())


def public_half(private: str) -> str:
    """Return the line for authorized_keys of a private key without a passphrase. Raise asyncssh.KeyImportError."""
    return " ".join(asyncssh.import_private_key(private).export_public_key().decode().split()[:2])


def files(want: FirstBoot, key: HostKey) -> dict[str, str]:
    """Return path below the root of the disk -> content."""
    network = [
        "# made by rackflow when it installed this machine", "[Match]", f"MACAddress={want.mac}", "", "[Network]",
        f"Address={want.address}", *([f"Gateway={want.gateway}"] if want.gateway else []),
        *(f"DNS={one}" for one in want.nameservers),
    ]  # fmt: skip
    found = {
        "etc/hostname": f"{want.hostname}\n",
        "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {want.hostname}\n::1 localhost\n",
        "etc/systemd/network/10-rackflow.network": "\n".join(network) + "\n",
        "etc/ssh/ssh_host_ed25519_key": key.private,
        "etc/ssh/ssh_host_ed25519_key.pub": f"{key.public} {want.hostname}\n",
        "root/.ssh/authorized_keys": f"{want.authorized_key}\n",
    }
    if want.nameservers:
        found["etc/resolv.conf"] = "".join(f"nameserver {one}\n" for one in want.nameservers)
    return found


def archive(content: Mapping[str, str]) -> bytes:
    """Return a tar of files that belong to root; secrets can be read by nobody else."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        _folder(tar, "root/.ssh", 0o700)
        for path, text in sorted(content.items()):
            info = tarfile.TarInfo(path)
            data = text.encode()
            info.size, info.mode = len(data), 0o600 if path in _SECRET else 0o644
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _folder(tar: tarfile.TarFile, path: str, mode: int) -> None:
    info = tarfile.TarInfo(path)
    info.type, info.mode = tarfile.DIRTYPE, mode
    tar.addfile(info)
