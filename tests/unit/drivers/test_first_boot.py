"""What an installed disk is given: name, address, host key, who may enter; secrets for root alone."""

from __future__ import annotations

import io
import tarfile

import asyncssh

from drivers.baremetal.first_boot import FirstBoot, archive, files, make_host_key, public_half

WANT = FirstBoot("r1", "52:54:00:00:00:01", "10.0.0.5/24", "ssh-ed25519 AAAA", "10.0.0.1", ("10.0.0.2",))


def test_files() -> None:
    key = make_host_key()
    found = files(WANT, key)
    assert found["etc/hostname"] == "r1\n"
    network = found["etc/systemd/network/10-rackflow.network"]
    for line in ("MACAddress=52:54:00:00:00:01", "Address=10.0.0.5/24", "Gateway=10.0.0.1", "DNS=10.0.0.2"):
        assert line in network.splitlines()
    assert found["etc/resolv.conf"] == "nameserver 10.0.0.2\n"
    assert found["root/.ssh/authorized_keys"] == "ssh-ed25519 AAAA\n"


def test_the_host_key_on_the_disk_is_the_one_that_is_pinned() -> None:
    key = make_host_key()
    planted = asyncssh.import_private_key(files(WANT, key)["etc/ssh/ssh_host_ed25519_key"])
    assert planted.get_fingerprint() == key.fingerprint
    assert public_half(key.private) == key.public
    assert key.private not in repr(key)


def test_the_archive_keeps_secrets_to_root() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive(files(WANT, make_host_key())))) as tar:
        members = tar.getmembers()
    modes = {one.name: one.mode for one in members}
    assert modes["root/.ssh"] == 0o700
    assert modes["etc/ssh/ssh_host_ed25519_key"] == modes["root/.ssh/authorized_keys"] == 0o600
    assert modes["etc/ssh/ssh_host_ed25519_key.pub"] == 0o644
    assert {one.uid for one in members} == {0}
