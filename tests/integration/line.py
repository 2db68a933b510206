"""The line from request to host without Prefect: flows as plain coroutines over a real store and simulated hosts.

The hosts are fakes, for scale and faults; `tests/live` runs the same flows on libvirt and LXD, `tests/prefect` runs
them through a real Prefect server.
"""

from __future__ import annotations

import inspect
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from prefect import Flow, Task

import flows.change
import flows.change_machine
import flows.deploy
import flows.enroll
import flows.enroll_machine
import flows.evacuate
import flows.host_power
import flows.keep
import flows.rebalance
import flows.reconcile
import flows.stage
from blueprints.network import NetworkSpec
from control import access, instances, networks, operations, requests
from control.access import Principal
from control.lifecycle import VERBS
from control.operations import Operation
from control.seed import seed
from control.store import Store
from core.ids import new_id
from core.settings import DriverSettings, Paths, Settings
from core.states import OperationState, Verb
from drivers.fake_world import FakeHost, world
from drivers.pool import HostPool
from tasks.runtime import Runtime, set_runtime
from tasks.settle import BatchFailed

MODULES: tuple[ModuleType, ...] = (
    flows.change, flows.deploy, flows.enroll, flows.evacuate, flows.keep, flows.rebalance, flows.reconcile,
    flows.stage, flows.enroll_machine, flows.change_machine, flows.host_power,
)  # fmt: skip
FLOWS: dict[Verb, Flow[..., Any]] = {
    Verb.DEPLOY: flows.deploy.deploy,
    **dict.fromkeys([verb for verb in VERBS if verb is not Verb.DEPLOY], flows.change.change),
    Verb.START: flows.change.start,
    Verb.SHUTDOWN: flows.change.shutdown,
    Verb.DELETE: flows.change.delete,
    Verb.MIGRATE: flows.change.migrate,
    Verb.MIGRATE_LIVE: flows.change.migrate,
    Verb.TEST_BACKUP: flows.keep.backup,
    Verb.DROP_BACKUP: flows.keep.backup,
    Verb.ENROLL: flows.enroll.enroll,
    Verb.RETIRE: flows.enroll.enroll,
    Verb.CONFIGURE: flows.enroll.enroll,
    Verb.ENROLL_MACHINE: flows.enroll_machine.enroll_machine,
    Verb.CHANGE_MACHINE: flows.change_machine.change_machine,
    Verb.EVACUATE: flows.evacuate.evacuate,
    Verb.FENCE: flows.evacuate.fence,
    Verb.SLEEP: flows.host_power.host_power,
    Verb.WAKE: flows.host_power.host_power,
    Verb.ADOPT: flows.evacuate.adopt,
    Verb.IMPORT: flows.stage.stage,
    Verb.STAGE: flows.stage.stage,
    Verb.REMOVE: flows.stage.stage,
    Verb.RECONCILE: flows.reconcile.reconcile,
    Verb.APPLY_PLAN: flows.rebalance.apply_plan,
}


@contextmanager
def without_prefect() -> Iterator[None]:
    """Let flows call their tasks as plain functions."""
    kept = [
        (module, name, value) for module in MODULES for name, value in vars(module).items() if isinstance(value, Task)
    ]
    try:
        for module, name, value in kept:
            setattr(module, name, value.fn)
        yield
    finally:
        for module, name, value in kept:
            setattr(module, name, value)


@dataclass
class Line:
    """A store, a worker's runtime, and an administrator."""

    store: Store
    settings: Settings
    runtime: Runtime
    admin: Principal

    def submit(self, verb: Verb, body: dict[str, Any], *, key: str | None = None) -> list[str]:
        """Enter a request and return its operations' ids."""
        accepted = self.store.write_now(
            lambda c: requests.submit(c, self.admin, verb, body, source="test", idempotency_key=key)
        )
        return [op.id for op in accepted.operations]

    async def work(self) -> list[Operation]:
        """Do one round of the dispatcher: claim what is due and run its flows; return what was claimed."""
        claimed = await self.store.write(lambda c: operations.claim_pending(c, self.runtime.worker_id))
        for verb in dict.fromkeys(op.verb for op in claimed):
            ids = [op.id for op in claimed if op.verb is verb]
            flow: Flow[..., Any] = FLOWS[verb]
            try:
                answer = flow.fn(operations=ids)
                assert inspect.isawaitable(answer)
                await answer
            except BatchFailed:
                pass  # each reason stands in the ledger
        return claimed

    async def run(self, verb: Verb, body: dict[str, Any], *, rounds: int = 5) -> list[Operation]:
        """Submit and work until all of it has ended, or the rounds are over; return the operations."""
        ids = self.submit(verb, body)
        for _ in range(rounds):
            await self.work()
            if all(op.finished_at for op in self.operations(ids)):
                break
        return self.operations(ids)

    def operations(self, ids: list[str]) -> list[Operation]:
        return self.store.read_now(lambda c: operations.get(c, ids))

    def instance(self, name: str) -> dict[str, Any]:
        return self.store.read_now(lambda c: instances.show(c, self.admin, name))

    def steps(self, op_id: str) -> list[tuple[str, str]]:
        """Return (name, state) of an operation's steps."""
        found = self.store.read_now(lambda c: operations.steps_of(c, [op_id]))
        return [(step.name, step.state.value) for step in found[op_id]]

    def another_worker(self) -> Runtime:
        """Return the runtime of a second worker over the same store."""
        return Runtime(self.store, self.settings, HostPool(self.settings.drivers), new_id())


def left_on_hosts() -> list[str]:
    """Return everything of ours on the simulated hosts."""
    found = []
    for host in world.hosts.values():
        found += [f"{host.name}: instance {name}" for name, i in host.instances.items() if i.spec is not None]
        for path, store in host.stores.items():
            found += [f"{host.name}:{path}: volume {name}" for name in [*store.volumes, *store.seeds]]
    return found


def image_files(folder: Path) -> dict[str, Path]:
    """Make the smallest files that pass for a VM's disk and a container's image."""
    folder.mkdir(parents=True, exist_ok=True)
    disk = folder / "vm.raw"
    disk.write_bytes(b"\x55" * 510 + b"\x55\xaa" + b"\x55" * (2**20 - 512))  # a boot sector ends so
    box = folder / "box.tar.gz"
    meta = folder / "metadata.yaml"
    meta.write_text("architecture: x86_64\ncreation_date: 1700000000\n")
    (folder / "rootfs").mkdir(exist_ok=True)
    with tarfile.open(box, "w:gz") as tar:
        tar.add(meta, "metadata.yaml")
        tar.add(folder / "rootfs", "rootfs")
    return {"vm": disk, "box": box}


async def make_line(folder: Path, hosts: int = 3, **size: Any) -> Line:
    """Build a line with simulated hosts enrolled and images `vm` and `box` imported."""
    paths = Paths(folder / "data", folder / "run")
    paths.images_dir.mkdir(parents=True)
    settings = Settings(paths, f"sqlite:///{folder}/state.db", drivers=DriverSettings(domain_type="qemu"))
    store = Store(settings.database_url)
    store.migrate()
    store.write_now(lambda c: seed(c, settings.drivers.datastore_path))
    admin = store.write_now(lambda c: access.named(c, "admin", access.ADMIN))
    line = Line(store, settings, Runtime(store, settings, HostPool(settings.drivers), new_id()), admin)
    line.runtime.claim_until = float("inf")  # as the claim in the record: nobody renews it here
    set_runtime(line.runtime)
    await store.write(lambda c: operations.renew_claim(c, line.runtime.worker_id, "test", 3600))
    world.reset()
    for i in range(hosts):
        world.add(FakeHost(f"f{i}", **size))
    lan = NetworkSpec.model_validate({
        "name": "lan", "bridge": "br0", "subnet": "10.9.0.0/16",
        "ranges": [{"first": "10.9.0.10", "last": "10.9.9.250"}],
        "default_for": ["vm", "container"],
    })  # fmt: skip
    store.write_now(lambda c: networks.ensure(c, admin, lan))
    files = image_files(folder / "files")
    images = [{"name": n, "kind": k, "source": str(files[n])} for n, k in (("vm", "vm"), ("box", "container"))]
    machines = [{"name": f"f{i}", "address": f"10.99.0.{i + 1}", "driver": "fake"} for i in range(hosts)]
    for verb, body in ((Verb.IMPORT, {"images": images}), (Verb.ENROLL, {"hosts": machines})):
        ended = await line.run(verb, body)
        assert [op.state for op in ended] == [OperationState.DONE] * len(ended), [op.error for op in ended]
    return line
