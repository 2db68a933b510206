"""What scripts/firecracker says of a host that is not ready: this machine over SSH, with a PATH of the test's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from drivers.hypervisor.firecracker_config import is_too_old
from tests.contract import firecracker_ready
from tests.integration.sshd import sshd

HAS_KVM = Path("/dev/kvm").exists()
SCRIPT = Path(__file__).resolve().parents[2] / "scripts/firecracker"
VERSIONS = {
    "Firecracker v1.7.0": True, "Firecracker v0.25.2": True, "Firecracker v1.8.0": False,
    "Firecracker v1.17.0-shim": False, "Firecracker v2.0.1": False, "Firecracker abcdef-dirty": False,
}  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
def test_versions(version: str) -> None:
    assert is_too_old(version) is VERSIONS[version]


@pytest.mark.parametrize(("binary", "words"), [
    ("", "firecracker is not in the PATH"), ("echo Firecracker v1.8.1", ""),
    ("echo Firecracker v1.7.0", "Firecracker v1.7.0 is too old: take 1.8 or newer"), ("echo hello", "says no version"),
])  # fmt: skip
async def test_what_a_host_lacks_is_said(tmp_path: Path, binary: str, words: str) -> None:
    if binary:
        (tmp_path / "firecracker").write_text(f"#!/bin/sh\n{binary}\n")
        (tmp_path / "firecracker").chmod(0o755)
    async with sshd(tmp_path, prefix=["env", f"PATH={tmp_path}:/usr/bin:/bin"]) as endpoint:
        found = await firecracker_ready.look(endpoint)
    assert (f"there is no /dev/kvm: {firecracker_ready.HARDWARE}" in found) is not HAS_KVM
    mine = [line for line in found if "irecracker" in line]
    assert len(mine) == bool(words), found
    assert words in "".join(mine)


def test_all_is_said_at_once() -> None:
    found = firecracker_ready.missing("no-binary\nno-kvm\nno-tun\ntool ip\ntool qemu-img\nno-root\n")
    assert [line.partition(":")[0] for line in found] == [
        "firecracker is not in the PATH", "there is no /dev/kvm", "there is no /dev/net/tun",
        "the user is not root and may not use sudo without a password", "there is no ip", "there is no qemu-img",
    ]  # fmt: skip
    assert firecracker_ready.missing("version v1.8.0\n") == []


@pytest.mark.parametrize(("words", "said"), [
    (["root@h1"], "scripts/firecracker USER@ADDRESS"), (["root@h1", "/none"], "there is no key /none"),
    (["root@h1:port", "/none"], "is no USER@ADDRESS"), (["--real", "/none"], "USER@ADDRESS"),
    (["root@h1", str(SCRIPT) + ".pub"], "there is no key"),
])  # fmt: skip
def test_wrong_words_are_refused_before_anything_is_done(words: list[str], said: str) -> None:
    done = subprocess.run([SCRIPT, *words], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
