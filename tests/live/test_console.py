"""The command line at the console and before the screen of a real VM: CLI, WebSocket, API, SSH, libvirt."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa
import uvicorn

from analytics.client import AnalyticsClient
from api.app import create_app
from control import access, operations, sql, tables
from control.hosts import record_enrolled
from control.requests import submit
from control.seed import seed
from control.store import Store
from core.clock import now
from core.ids import new_id
from core.settings import Paths, Settings
from core.states import InstanceState, OperationState, Verb
from drivers.hypervisor.base import InstanceSpec
from tests.labs import Lab
from tests.live.kvm import KvmHost, kvm_host

pytestmark = pytest.mark.live
BOOT_S = 90


@pytest_asyncio.fixture
async def made(lab: Lab) -> AsyncIterator[tuple[KvmHost, InstanceSpec]]:
    async with kvm_host(lab, lab.hosts("kvm")[-1]) as host:
        spec = await host.new()
        await host.hypervisor.define(spec)
        await host.hypervisor.start(spec.name)
        await host.ready(spec.name)
        yield host, spec


@pytest_asyncio.fixture
async def env(lab: Lab, made: tuple[KvmHost, InstanceSpec], tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """Serve an API whose record has the VM as `web`; return what leads the command line there."""
    settings = Settings(Paths(tmp_path / "data", tmp_path / "run"), f"sqlite:///{tmp_path}/state.db")
    store = Store(settings.database_url)
    store.migrate()
    token = await record(store, lab, *made)
    app = create_app(settings, store, AnalyticsClient(settings.paths.analytics_socket), lambda: None)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield {**os.environ, "RACKFLOW_URL": f"http://127.0.0.1:{port}", "RACKFLOW_TOKEN": token}
    server.should_exit = True
    await serving
    await store.close()


async def record(store: Store, lab: Lab, host: KvmHost, spec: InstanceSpec) -> str:
    """Write a host and an instance into an empty record, and return an administrator's token."""
    endpoint = host.host.transport.endpoint
    able = asdict(await host.hypervisor.capabilities())
    machine = {"name": endpoint.name, "address": endpoint.address, "key_file": str(lab.key)}

    def write(c: sa.Connection) -> str:
        seed(c, "/var/lib/rackflow/datastore")
        token = access.ensure_admin(c)
        worker = new_id()
        operations.renew_claim(c, worker, "test", 3600)
        submit(c, access.find(c, "admin"), Verb.ENROLL, {"hosts": [machine]}, source="test")
        [op] = operations.claim_pending(c, worker)
        record_enrolled(
            c, op, op.subject_id, driver="kvm", host_key=endpoint.host_key, facts={}, capabilities=able, cpus=4,
            memory_mib=4096,
        )  # fmt: skip
        operations.finish(c, op, OperationState.DONE)
        sql.insert(c, tables.instance, [{
            "id": spec.id, "name": "web", "live_name": "web", "kind": "vm", "state": InstanceState.RUNNING,
            "owner": "admin", "cpu": 1.0, "memory_mib": 128, "disk_mib": 64, "host_id": op.subject_id,
            "spec": {"name": "web", "image": "tiny"}, "labels": {}, "blueprint": "", "epoch": 1, "reason": "",
            "created_at": now(), "updated_at": now(),
        }])  # fmt: skip
        assert token is not None
        return token

    return await store.write(write)


def rackflow(env: dict[str, str], *argv: str, **kwargs: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "rackflow_cli.main", *argv], env=env, **kwargs)


async def test_a_command_typed_at_the_console(env: dict[str, str]) -> None:
    pipe = subprocess.PIPE
    process = rackflow(env, "console", "web", "--linger", "5", stdin=pipe, stdout=pipe, stderr=pipe)
    out, err = await asyncio.to_thread(process.communicate, b"\necho a$((1+1))b\n", BOOT_S)
    assert (process.returncode, err) == (0, b"")
    assert b"a2b" in out


async def test_a_console_ends_with_its_vm(env: dict[str, str], made: tuple[KvmHost, InstanceSpec]) -> None:
    host, spec = made
    pipe = subprocess.PIPE
    process = rackflow(env, "console", "web", stdin=pipe, stdout=pipe, stderr=pipe)
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"\necho a$((1+1))b\n")
    process.stdin.flush()
    seen = b""
    while b"a2b" not in seen:
        more = await asyncio.wait_for(asyncio.to_thread(os.read, process.stdout.fileno(), 4096), BOOT_S)
        assert more, seen
        seen += more
    await host.hypervisor.stop(spec.name, grace_s=0)
    assert await asyncio.to_thread(process.wait, 30) == 0
    await asyncio.to_thread(process.communicate)


async def test_the_screen_behind_a_local_port(env: dict[str, str]) -> None:
    process = rackflow(env, "console", "web", "--vnc", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    address = (await asyncio.to_thread(process.stdout.readline)).decode().strip()

    def handshake() -> tuple[bytes, bytes]:
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=30) as viewer:
            version = viewer.recv(12, socket.MSG_WAITALL)
            viewer.sendall(version)
            return version, viewer.recv(2, socket.MSG_WAITALL)  # how many security types, and the first

    for _ in range(2):
        version, security = await asyncio.to_thread(handshake)
        assert version == b"RFB 003.008\n"
        assert security[0] >= 1
    process.send_signal(2)
    assert await asyncio.to_thread(process.wait, 10) == 0
    process.stdout.close()
