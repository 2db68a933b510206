"""An API over a real SQLite store and a real history, without hosts: what the worker would write is written here."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
from fastapi import FastAPI

from analytics.client import AnalyticsClient
from api.app import create_app
from control import access, host_looks, hosts, images, operations
from control.access import Principal
from control.operations import Operation
from control.seed import seed
from control.store import Store
from core.ids import new_id
from core.settings import Paths, Settings
from core.states import OperationState

SHA = "ab" * 32
LAN = {
    "name": "lan", "bridge": "br0", "subnet": "10.1.0.0/24", "gateway": "10.1.0.1", "default_for": ["vm", "container"],
    "ranges": [{"first": "10.1.0.100", "last": "10.1.0.200"}],
}  # fmt: skip
Work = Callable[[sa.Connection, Operation], object]


@dataclass
class Rig:
    """wakes: how often the dispatcher was woken."""

    app: FastAPI
    store: Store
    settings: Settings
    client: httpx.AsyncClient
    admin: Principal
    token: str
    wakes: list[int]
    worker: str = field(default_factory=new_id)

    async def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, **headers: str
    ) -> httpx.Response:
        """Send a request as the admin, or with another token ("": none)."""
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        token = self.token if token is None else token
        if token:
            said["Authorization"] = f"Bearer {token}"
        return await self.client.request(method, f"/v1{path}", json=body, headers=said)

    async def ok(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        """Send a request that must succeed, and return its JSON."""
        answer = await self.call(method, path, body, token=token)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def user(self, name: str) -> str:
        """Make a user and return a token."""
        return self.store.write_now(lambda c: access.new_token(c, access.named(c, name), "test"))

    def work(self, do: Work, state: OperationState = OperationState.DONE) -> list[Operation]:
        """Do as a worker does with all that is pending."""
        claimed = self.store.write_now(lambda c: operations.claim_pending(c, self.worker))
        for op in claimed:
            self.store.write_now(partial(_run, do, op, state))
        return claimed

    async def furnish(self, *, images_: tuple[str, ...] = ("tiny",), hosts_: tuple[str, ...] = ("h1",)) -> None:
        """Make a network, ready images of VMs, and ready hosts."""
        await self.ok("POST", "/networks", LAN)
        await self.ok("POST", "/images", [{"name": name, "source": f"/images/{name}.qcow2"} for name in images_])
        self.work(_imported)
        if hosts_:
            machines = [{"name": name, "address": f"10.9.0.{n}"} for n, name in enumerate(hosts_, 1)]
            await self.ok("POST", "/hosts", machines)
            self.work(enrolled)


def _run(do: Work, op: Operation, state: OperationState, c: sa.Connection) -> None:
    do(c, op)
    operations.finish(c, op, state)


def _imported(c: sa.Connection, op: Operation) -> None:
    images.record_imported(c, op, op.subject_id, sha256=SHA, format="qcow2", size_bytes=2**20, virtual_size_mib=64)


def enrolled(c: sa.Connection, op: Operation) -> None:
    """Write what an enrollment finds."""
    from control.datastores import on_cluster

    hosts.record_enrolled(
        c, op, op.subject_id, driver="fake", host_key="ssh-ed25519 AAAA", facts={"kernel": "6.1"},
        capabilities={"driver": "fake", "kinds": ["vm", "container"], "exec": True, "console_log": True}, cpus=8,
        memory_mib=16384,
    )  # fmt: skip
    stores = [(store.id, 100_000, 90_000) for store in on_cluster(c, "default")]
    host_looks.write(c, {op.subject_id: host_looks.Seen(stores, {"br0": "10.1.0.2/24"})})


def make_template(folder: Path) -> tuple[Path, str]:
    """Make an empty cloud's database once, to be copied; return it with the admin's token."""
    path = folder / "template.db"
    store = Store(f"sqlite:///{path}")
    store.migrate()
    store.write_now(lambda c: seed(c, "/var/lib/rackflow/datastore"))
    token = store.write_now(access.ensure_admin)
    store.close_now()
    assert token is not None
    return path, token


def make(folder: Path, template: tuple[Path, str]) -> Rig:
    """Build a rig; its history is at folder/run/analytics.sock if somebody serves it there."""
    paths = Paths(folder / "data", folder / "run")
    paths.run_dir.mkdir(parents=True)
    settings = Settings(paths, f"sqlite:///{folder}/state.db")
    source, token = template
    shutil.copyfile(source, folder / "state.db")
    store = Store(settings.database_url)
    wakes: list[int] = []
    app = create_app(settings, store, AnalyticsClient(paths.analytics_socket), lambda: wakes.append(1))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    client = httpx.AsyncClient(transport=transport, base_url="http://rackflow")
    admin = store.read_now(lambda c: access.authenticate(c, token))
    rig = Rig(app, store, settings, client, admin, token, wakes)
    store.write_now(lambda c: operations.renew_claim(c, rig.worker, "test", 3600))
    return rig
