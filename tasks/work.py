"""One operation on one instance, as its steps see it: the record's view, its hosts, and where its files are."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from control import instances
from control.datastores import DatastoreRecord
from control.hosts import HostRecord
from control.instances import Deployable
from control.operations import Operation
from core.errors import HostFault, Unsupported
from core.states import HostState, InstanceKind, InstanceState
from drivers.carrier import Carrier
from drivers.hosts import Host
from drivers.hypervisor.powers import Carries
from drivers.storage.base import Storage
from drivers.storage.reshape import fitting
from drivers.storage.vault import Vault
from tasks.copies import keeper_of
from tasks.runtime import Runtime


@dataclass(frozen=True)
class Work:
    """What an action gets. view: as the record has the instance at the begin of the step."""

    rt: Runtime
    op: Operation
    view: Deployable

    @property
    def name(self) -> str:
        """Return the instance's name on its host."""
        return self.view.on_host

    @property
    def was(self) -> InstanceState:
        """Return the state in which the instance was when it was asked for the verb."""
        return InstanceState(self.op.parameters.get("was", self.view.state))

    @property
    def runs_before(self) -> bool:
        """Say whether it ran when the verb was asked for, or is to run after it."""
        return (self.op.parameters.get("then") or self.was) in (InstanceState.RUNNING, InstanceState.SUSPENDED)

    @property
    def grace_s(self) -> float:
        """Return how long the guest has to shut down."""
        given = self.op.parameters.get("grace_s")
        return 30.0 if given is None else float(given)

    @property
    def is_fenced(self) -> bool:
        """Say whether the host that the record has it on is fenced: that is off, and so is all on it."""
        return self.view.host is not None and self.view.host.state is HostState.FENCED

    @property
    def other_is_fenced(self) -> bool:
        """Say whether the host that it goes to, or comes from, is fenced."""
        return self.view.other is not None and self.view.other.state is HostState.FENCED

    async def host(self) -> Host:
        """Return the drivers of the host that the record has it on. Raise HostFault (on none)."""
        return await self.rt.host(self._on(self.view.host))

    async def other(self) -> Host:
        """Return the drivers of the host that it goes to, or comes from. Raise HostFault."""
        return await self.rt.host(self._on(self.view.other))

    def _on(self, record: HostRecord | None) -> HostRecord:
        if record is None:
            raise HostFault("the instance is on no host", f"instance/{self.view.name}")
        return record

    def storage(self, host: Host, *, other: bool = False) -> Storage:
        """Return the datastore of its disks on its host, or on the other one. Raise HostFault (it has none)."""
        store = self.view.other_datastore if other else self.view.datastore
        if store is None:
            raise HostFault("the instance's disks are on no datastore", f"instance/{self.view.name}")
        return host.storage(store.path)

    def carrier(self, host: Host, *, other: bool = False) -> Carrier:
        """Return what holds its files on a host: the hypervisor itself, or the datastore."""
        if self.in_pool(host):
            carries: Carries = self.power(host, Carries, "carry")
            return carries.carrier()
        return self.storage(host, other=other).carrier()

    def fitting(
        self, source: Carrier, host: Host, *, came_from: Host | None = None
    ) -> AbstractAsyncContextManager[Carrier]:
        """Return what hands on its files as a host takes them; from another kind of host they are converted."""
        kind, paths = "" if self.in_pool(host) else host.kind, self.rt.settings.paths
        of = came_from.kind if came_from else ""
        return fitting(source, self.view.id, kind, paths.images_dir, paths.parked_dir, of=of)

    def in_pool(self, host: Host) -> bool:
        """Say whether the hypervisor itself holds its disks."""
        return keeper_of(host, self.view.kind) is not None

    @property
    def is_shared(self) -> bool:
        """Say whether both hosts see the same disks."""
        if self.view.kind is InstanceKind.CONTAINER:  # its hypervisor holds its disks, whatever its datastore
            return False
        one, two = self.view.datastore, self.view.other_datastore
        return _is_shared(one) and (two is None or (one is not None and one.id == two.id))

    @property
    def vault(self) -> Vault:
        """Return where the front-end keeps what instances without a host leave."""
        return Vault(self.rt.settings.paths.parked_dir)

    @property
    def backup_store(self) -> Vault:
        """Return where the front-end keeps backups."""
        return Vault(self.rt.settings.paths.backups_dir)

    def power(self, host: Host, protocol: type[Any], doing: str) -> Any:
        """Return the hypervisor as one that has an optional power. Raise Unsupported."""
        if not isinstance(host.hypervisor, protocol):
            raise Unsupported(
                f"{host.kind} on {host.name} cannot {doing} {self.view.name}", f"instance/{self.view.name}",
                {"host": host.name, "driver": host.kind},
            )  # fmt: skip
        return host.hypervisor


async def view_of(rt: Runtime, op: Operation) -> Deployable:
    """Return an operation's instance as the record has it now."""
    return (await rt.store.read(lambda c: instances.deployables(c, [op.subject_id])))[op.subject_id]


def _is_shared(store: DatastoreRecord | None) -> bool:
    return store is not None and store.shared
