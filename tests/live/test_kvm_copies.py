"""KVM: what lies in backups and snapshots, and what makes the one spoil the other."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from core.errors import Conflict, Invalid, Unsupported
from core.states import PowerState
from drivers.hypervisor.base import InstanceSpec
from drivers.hypervisor.powers import BackupFile
from tests.labs import Lab
from tests.live.kvm_powers import Pair, pair_of


@pytest.fixture
async def pair(lab: Lab) -> AsyncIterator[Pair]:
    async with pair_of(lab) as found:
        yield found


async def info(pair: Pair, path: str) -> dict[str, Any]:
    argv = ["qemu-img", "info", "--force-share", "--output=json", path]
    found: dict[str, Any] = json.loads((await pair.here.host.transport.run(argv)).stdout)
    return found


async def write(pair: Pair, spec: InstanceSpec, content: str) -> None:
    await pair.source.exec(spec.name, ["tee", "/kept"], stdin=content.encode())
    await pair.source.exec(spec.name, ["sync"])


async def restored(pair: Pair, spec: InstanceSpec, files: list[str]) -> str:
    """Start the VM from the last of these files, each put on top of the one before; return what stands in /kept."""
    run = pair.here.host.transport.run
    for below, above in pairwise(files):
        await run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", below, above])
    await pair.source.stop(spec.name, grace_s=0)
    await run(["qemu-img", "convert", "-O", "qcow2", files[-1], spec.disks[0].source])
    await pair.source.start(spec.name)
    await pair.here.ready(spec.name)
    return (await pair.source.exec(spec.name, ["cat", "/kept"])).stdout


async def kept(pair: Pair, files: list[BackupFile], name: str) -> str:
    """Put a backup of the root disk aside, as the front-end takes it away."""
    (file,) = files
    await pair.here.host.transport.run(["mv", file.path, f"{pair.folder}/{name}"])
    return f"{pair.folder}/{name}"


async def test_a_whole_backup_stands_alone_and_increments_go_on_top(pair: Pair) -> None:
    spec, kvm = await pair.running(), pair.source
    await write(pair, spec, "one")
    first = await kept(pair, await kvm.backup(spec.name, pair.folder, checkpoint="c1"), "1.qcow2")
    whole = await info(pair, first)
    assert "backing-filename" not in whole
    await write(pair, spec, "two")
    second = await kvm.backup(spec.name, pair.folder, checkpoint="c2", since="c1")
    assert [file.since for file in second] == ["c1"]
    increment = await kept(pair, second, "2.qcow2")
    assert (await info(pair, increment))["actual-size"] < whole["actual-size"] / 2
    await kvm.drop_checkpoint(spec.name, "c1")
    await write(pair, spec, "three")
    third = await kvm.backup(spec.name, pair.folder, checkpoint="c3", since="c2")
    assert [file.since for file in third] == ["c2"], "an older checkpoint can go"
    last = await kept(pair, third, "3.qcow2")
    assert await restored(pair, spec, [first, increment, last]) == "three"


@pytest.mark.slow
async def test_what_is_off_is_backed_up_whole(pair: Pair) -> None:
    spec, kvm = await pair.running(), pair.source
    await write(pair, spec, "one")
    await kvm.stop(spec.name, grace_s=0)
    (file,) = await kvm.backup(spec.name, pair.folder, checkpoint="c1", since="c0")
    assert (file.since, "backing-filename" in await info(pair, file.path)) == ("", False)
    await kvm.start(spec.name)
    (file,) = await kvm.backup(spec.name, pair.folder, checkpoint="c2", since="c1")
    assert file.since == "", "what is off gets no checkpoint"


@pytest.mark.slow
async def test_a_checkpoint_survives_a_stop_but_not_a_kill(pair: Pair) -> None:
    spec, kvm = await pair.running(), pair.source
    await kvm.backup(spec.name, pair.folder, checkpoint="c1")
    await kvm.stop(spec.name, grace_s=20)
    await kvm.start(spec.name)
    (file,) = await kvm.backup(spec.name, pair.folder, checkpoint="c2", since="c1")
    assert file.since == "c1"
    pid = (await pair.here.host.transport.run(["cat", f"/run/libvirt/qemu/{spec.name}.pid"])).stdout.strip()
    pair.here.lab.run("h1", f"kill -9 {pid}")
    while (await kvm.observe(spec.name)).power is PowerState.RUNNING:
        pass
    await kvm.start(spec.name)
    (file,) = await kvm.backup(spec.name, pair.folder, checkpoint="c3", since="c2")
    assert file.since == "", "its bitmap is broken"
    (file,) = await kvm.backup(spec.name, pair.folder, checkpoint="c4", since="c3")
    assert file.since == "c3"


@pytest.mark.slow
async def test_a_new_disk_is_whole_in_an_increment(pair: Pair) -> None:
    spec, kvm = await pair.running(), pair.source
    await kvm.backup(spec.name, pair.folder, checkpoint="c1")
    await kvm.reconfigure(await pair.with_disk(spec))
    files = await kvm.backup(spec.name, pair.folder, checkpoint="c2", since="c1")
    assert {file.disk: file.since for file in files} == {"root": "c1", "data1": ""}
    (file,) = await kvm.backup(spec.name, pair.folder, checkpoint="c3", since="c2", disks=["data1"])
    assert (file.disk, file.since) == ("data1", "c2")
    with pytest.raises(Invalid):
        await kvm.backup(spec.name, pair.folder, checkpoint="c4", disks=["none"])


@pytest.mark.slow
@pytest.mark.parametrize("copied", [False, True])
async def test_checkpoints_go_along_when_it_moves(pair: Pair, copied: bool) -> None:
    spec, move = await pair.shared()
    if copied:
        spec = await pair.new()
        move, _ = await pair.move(spec)
    await pair.running(spec)
    await write(pair, spec, "one")
    first = await kept(pair, await pair.source.backup(spec.name, pair.folder, checkpoint="c1"), "1.qcow2")
    assert await pair.source.migrate(move, pair.target, timeout_s=60) is True
    await pair.target.exec(spec.name, ["tee", "/kept"], stdin=b"two")
    await pair.target.exec(spec.name, ["sync"])
    pair.there.lab.run("h2", f"install -d -m 2777 {pair.folder}")
    try:
        (file,) = await pair.target.backup(spec.name, pair.folder, checkpoint="c2", since="c1")
        assert file.since == "c1"
        content = await pair.there.host.transport.get(file.path, max_bytes=2**28)
    finally:
        pair.there.lab.run("h2", f"rm -rf {pair.folder}")
    await pair.here.host.transport.put(content, f"{pair.folder}/2.qcow2")
    await pair.target.stop(spec.name, grace_s=0)
    base = await pair.running()
    assert await restored(pair, base, [first, f"{pair.folder}/2.qcow2"]) == "two"


@pytest.mark.slow
async def test_a_bitmap_that_nobody_knows(pair: Pair) -> None:
    spec, kvm = await pair.running(), pair.source
    await kvm.backup(spec.name, pair.folder, checkpoint="c1")
    pair.here.lab.run("h1", f"virsh checkpoint-delete {spec.name} c1 --metadata")
    (file,) = await kvm.backup(spec.name, pair.folder, checkpoint="c1", since="c1")
    assert file.since == ""
    (file,) = await kvm.backup(spec.name, pair.folder, checkpoint="c2", since="c1")
    assert file.since == "c1"


@pytest.mark.slow
async def test_snapshots_and_checkpoints(pair: Pair) -> None:
    spec, kvm = await pair.running(), pair.source
    await write(pair, spec, "one")
    await kvm.backup(spec.name, pair.folder, checkpoint="c1")
    await kvm.snapshot(spec.name, "s1", memory=True)
    await write(pair, spec, "two")
    (file,) = await kvm.backup(spec.name, pair.folder, checkpoint="c2", since="c1")
    assert file.since == "c1"
    await kvm.revert(spec.name, "s1")
    (file,) = await kvm.backup(spec.name, pair.folder, checkpoint="c3", since="c2")
    assert file.since == "", "what a snapshot brought back is in no bitmap"
    path = await kept(pair, [file], "whole.qcow2")
    await kvm.drop_snapshot(spec.name, "s1")
    assert await restored(pair, spec, [path]) == "one"


@pytest.mark.slow
async def test_snapshots_of_what_was_changed_since(pair: Pair) -> None:
    spec, kvm = await pair.running(), pair.source
    with pytest.raises(Unsupported, match="with memory, or shut it down"):
        await kvm.snapshot(spec.name, "s1")
    await write(pair, spec, "one")
    await kvm.snapshot(spec.name, "s1", memory=True)
    await write(pair, spec, "two")
    assert await kvm.preflight(spec.name) != [], "snapshots do not move"
    root, seed = spec.disks
    grown = replace(spec, disks=(replace(root, size_mib=root.size_mib + 64), seed))
    assert await kvm.reconfigure(grown) is True
    assert await kvm.reconfigure(await pair.with_disk(pair.larger(grown))) is True
    with pytest.raises(Conflict, match="other disks"):
        await kvm.revert(spec.name, "s1")
    await kvm.stop(spec.name, grace_s=0)
    assert await kvm.define(grown) is True, "also with snapshots there"
    await kvm.revert(spec.name, "s1")
    assert (await kvm.observe(spec.name)).power is PowerState.RUNNING
    assert (await pair.source.exec(spec.name, ["cat", "/kept"])).stdout == "one"
    assert await kvm.reconfigure(grown) is True, "it went back to a smaller disk, and an older definition"
    assert await kvm.reconfigure(grown) is False
    assert await kvm.define(grown) is False


@pytest.mark.slow
async def test_a_running_one_reverts_to_a_snapshot_without_memory(pair: Pair) -> None:
    spec, kvm = await pair.running(), pair.source
    await write(pair, spec, "one")
    await kvm.stop(spec.name, grace_s=0)
    assert await kvm.snapshot(spec.name, "s1") is True
    await kvm.start(spec.name)
    await pair.here.ready(spec.name)
    await write(pair, spec, "two")
    await kvm.revert(spec.name, "s1")
    assert (await kvm.observe(spec.name)).power is PowerState.RUNNING, "it is as before"
    await pair.here.ready(spec.name)
    assert (await pair.source.exec(spec.name, ["cat", "/kept"])).stdout == "one"


@pytest.mark.slow
async def test_a_snapshot_takes_little_longer_than_libvirts_own_call(pair: Pair) -> None:
    spec, ours, bare = await pair.running(), [], []
    for number in range(3):
        begin = time.monotonic()
        await pair.source.snapshot(spec.name, f"s{number}", memory=True)
        ours.append(time.monotonic() - begin)
        begin = time.monotonic()
        pair.here.lab.run("h1", f"virsh snapshot-create-as {spec.name} v{number} --diskspec vdz,snapshot=no")
        bare.append(time.monotonic() - begin)
    print(f"\nsnapshot with memory: ours {ours}, virsh {bare}")
    assert min(ours) <= 1.2 * min(bare) + 1
