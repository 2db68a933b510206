"""After a power loss a file is whole or not there: content is synced before it gets its name, and the name before more.

A crash of the lab kills processes, not the page cache, so the order is read off the system calls (strace).
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from drivers.storage import dir_scripts as scripts
from drivers.transport import ssh

CALLS = "trace=write,pwrite64,fallocate,fsync,fdatasync,syncfs,rename,renameat,renameat2,link,linkat"
PATH = re.compile(r"(\w+)\((?:\d+<([^>]*)>)?(.*)")
ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@dataclass(frozen=True)
class Call:
    """One system call. path: of its descriptor; named: the paths in its arguments."""

    name: str
    path: str
    named: tuple[str, ...]
    text: str


def trace(argv: list[str], folder: Path, stdin: bytes = b"") -> list[Call]:
    """Run argv in folder and return its calls, of all its processes, in order."""
    log = folder / ".strace"
    done = subprocess.run(
        ["strace", "-f", "-y", "-s", "64", "-e", CALLS, "-e", "status=successful", "-o", str(log), *argv],
        input=stdin, capture_output=True, cwd=folder, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    calls = []
    for line in log.read_text(errors="replace").splitlines():
        match = PATH.match(line.split(maxsplit=1)[1])
        if match is not None:
            named = tuple(re.findall(r'"([^"]*)"', match[3]))
            calls.append(Call(match[1], match[2] or "", named, line))
    return calls


def check(calls: list[Call], whole: str) -> None:
    """See that the file that ends as `whole` was written, synced, renamed, in this order, and never written again."""
    at = next(n for n, c in enumerate(calls) if c.name.startswith("rename") and c.named[-1].endswith(whole))
    source = Path(calls[at].named[0]).name
    writes = [n for n, c in enumerate(calls) if c.name in ("write", "pwrite64") and Path(c.path).name == source]
    syncs = [n for n, c in enumerate(calls) if _syncs(c, source)]
    assert writes, [c.text for c in calls]
    assert any(max(writes) < n < at for n in syncs), [c.text for c in calls]
    later = [c for c in calls[at:] if c.name in ("write", "pwrite64") and Path(c.path).name == Path(whole).name]
    assert later == []


def _syncs(call: Call, name: str) -> bool:
    return call.name == "syncfs" or (call.name in ("fsync", "fdatasync") and Path(call.path).name == name)


def test_the_check_finds_what_is_out_of_order(tmp_path: Path) -> None:
    for script in ("echo a >x.part; mv x.part x", "echo a >x.part; sync x.part; echo b >>x.part; mv x.part x"):
        with pytest.raises(AssertionError):
            check(trace(["sh", "-c", script], tmp_path), "x")
    check(trace(["sh", "-c", "echo a >x.part; sync x.part; mv x.part x"], tmp_path), "x")


def test_a_file_put_on_a_host(tmp_path: Path) -> None:
    target = str(tmp_path / "target")
    words = [str(tmp_path / ".target.part"), target, "644", "5", "new"]
    check(trace(["sh", "-c", ssh._PUT, "sh", *words], tmp_path, b"12345"), target)


def test_a_new_volume(tmp_path: Path) -> None:
    image = tmp_path / "image.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "1M"], check=True)
    folder = tmp_path / "instance"
    words = [str(folder), f"{folder}/root.qcow2", "qcow2", "2", str(image), "qcow2", "0"]
    check(trace(["sh", "-c", scripts.VOLUME, "sh", *words], tmp_path), "root.qcow2")


def test_a_file_carried_to_a_host_is_on_its_disk_before_its_source_may_go(tmp_path: Path) -> None:
    content = b"x" * 100_000
    digest = hashlib.sha256(content).hexdigest()
    folder = tmp_path / "instances" / "i"
    words = [str(folder), "seed.iso", digest, str(len(content)), "", "", "mark"]
    calls = trace(["sh", "-c", scripts.TAKE, "sh", *words], tmp_path, content)
    check(calls, "seed.iso")
    said = next(n for n, c in enumerate(calls) if c.name == "write" and c.named and c.named[-1].startswith("taken"))
    renamed = next(n for n, c in enumerate(calls) if c.name.startswith("rename") and c.named[-1].endswith("seed.iso"))
    assert any(c.name == "fsync" and c.path == str(folder) for c in calls[renamed:said]), "the name is on the disk"


def test_a_restored_disk_takes_the_place_of_the_one_that_is_kept(tmp_path: Path) -> None:
    (tmp_path / "root.qcow2").write_text("old")
    made = tmp_path / ".root.restore" / "made"
    made.parent.mkdir()
    made.write_text("new")
    words = [str(tmp_path), "root.qcow2", str(made), "mark", str(made.parent)]
    calls = trace(["sh", "-c", scripts.SWAP, "sh", *words], tmp_path)
    order = [c for c in calls if c.name in ("fsync", "link", "linkat") or c.name.startswith("rename")]
    names = [c.name if not c.name.startswith("rename") else "rename" for c in order]
    assert names[:4] in (["fsync", "linkat", "fsync", "rename"], ["fsync", "link", "fsync", "rename"]), names
    assert order[0].path == str(made)
    assert (tmp_path / "root.qcow2.before").read_text() == "old"


def test_a_file_of_the_front_ends_store(tmp_path: Path) -> None:
    program = """
import asyncio, hashlib, sys
from pathlib import Path
from drivers.storage.vault import Vault

async def content():
    yield b"12345"

asyncio.run(Vault(Path(sys.argv[1])).take("b", "root.qcow2", content(), hashlib.sha256(b"12345").hexdigest(), 5))
"""
    store = tmp_path / "store"
    argv = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-c", program, str(store)]
    calls = trace(argv, tmp_path)
    check(calls, "b/root.qcow2")
    check(calls, "b/root.qcow2.json")
    first = next(n for n, c in enumerate(calls) if c.name.startswith("rename") and c.named[-1].endswith("root.qcow2"))
    vouched = next(n for n, c in enumerate(calls) if c.name.startswith("rename") and c.named[-1].endswith(".json"))
    assert first < vouched
    assert any(c.name == "fsync" and c.path == str(store / "b") for c in calls[vouched:])
