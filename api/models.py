"""What the API answers, for its OpenAPI description. A test holds every answer against these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.states import CopyState, HostState, ImageState, InstanceKind, InstanceState, PowerState, Verb

Id = Annotated[str, Field(description="20 characters, sortable by time", examples=["0hs1k3v8m2c4d5e6f7g8"])]
At = Annotated[str, Field(description="RFC 3339, UTC", examples=["2026-11-23T08:28:00.123Z"])]
Labels = dict[str, str]
Object = dict[str, Any]


class Answer(BaseModel):
    """Absent values are null, sizes are whole numbers in the unit of their name."""

    model_config = ConfigDict(extra="forbid")


class Problem(Answer):
    """An error (RFC 9457). code is stable; evidence says what was seen, fix what to do."""

    type: str = Field(examples=["urn:rackflow:error:conflict"])
    title: str
    status: int
    detail: str
    code: str = Field(examples=["conflict", "invalid", "not-found", "denied", "no-fit", "unreachable"])
    message: str = Field(examples=["instance web exists already"])
    subject: str | None
    evidence: Object
    fix: str | None
    safe_to_retry: bool


class Changed(Answer):
    changed: bool


class Deleted(Answer):
    deleted: str


class Instance(Answer):
    id: Id
    name: str
    kind: InstanceKind
    state: InstanceState
    host: str | None
    addresses: list[str]
    cpu: float
    memory_mib: int
    disk_mib: int
    image: str | None = Field(description="null: it was adopted")
    owner: str
    labels: Labels
    reason: str | None = Field(description="why it is pending, held or failed")
    operation: Id | None = Field(description="the unfinished one")
    created_at: At
    updated_at: At


class Nic(Answer):
    index: int = Field(description="its number: 0 is eth0")
    network: str
    bridge: str
    mac: str
    address: str | None
    prefix_length: int | None
    gateway: str | None


class Granted(Answer):
    """What of its host is one instance's alone."""

    cpus: list[int] = Field(description="numbers of the cores that it is pinned to")
    cell: int | None = Field(description="the NUMA cell that its cores and memory are of")
    page_kib: int | None = Field(description="size of the huge pages that its memory is made of")
    pci: list[str] = Field(description="addresses of devices", examples=[["0000:01:00.0"]])


class InstanceShown(Instance):
    spec: Object
    nics: list[Nic]
    granted: Granted | None
    epoch: int
    blueprint: str | None
    deleted_at: At | None


class Host(Answer):
    id: Id
    name: str
    state: HostState
    driver: str | None
    address: str
    port: int
    user: str
    host_key: str | None
    cluster: str
    kinds: list[InstanceKind]
    cpus: float | None
    memory_mib: int | None
    cpu_reserved: float
    memory_reserved_mib: int
    instances: int
    labels: Labels
    error: Object | None
    seen_at: At | None
    created_at: At
    updated_at: At


class Pages(Answer):
    page_kib: int
    total_mib: int
    free_mib: int


class Device(Answer):
    address: str
    id: str = Field(examples=["10de:1eb8"], description="vendor:device")
    class_: str = Field(alias="class", examples=["0302"])
    iommu_group: int | None = Field(default=None, description="devices of one group go to one instance together")
    free: bool


class RefusedDevice(Answer):
    address: str
    id: str = Field(examples=["10de:1eb8"], description="vendor:device")
    class_: str = Field(alias="class", examples=["0302"])
    why: str = Field(description="why it cannot be passed on, and what to do")


class Hardware(Answer):
    """What single instances may have of a host for themselves; free: what of it is left."""

    cells: list[Object] = Field(examples=[[{"cpus": [0, 1], "memory_mib": 4096}]])
    pinned_cpus: list[int]
    free_cpus: list[int]
    hugepages: list[Pages]
    pci: list[Device]
    refused: list[RefusedDevice] = Field(default=[], description="devices that were to be offered and cannot be")


class HostShown(Host):
    hardware: Hardware | None
    power: Object = Field(description="idle_since; switched_at, cycles, slept_s: of its sleep")
    spec: Object
    facts: Object
    capabilities: Object
    datastores: list[Object]
    networks: list[Object]


class HostKey(Answer):
    """What a machine shows before anybody logs in; compare the fingerprint before you trust it."""

    algorithm: str
    public: str
    fingerprint: str = Field(examples=["SHA256:Gq3bQ0c1fYk2oVbGq5Zk0m1Tj2W3cS4d5E6f7G8h9I0"])


class Copy(Answer):
    host: str
    state: CopyState
    bytes_done: int
    verified_at: At | None


class Image(Answer):
    id: Id
    name: str
    kind: InstanceKind
    state: ImageState
    source: str
    sha256: str | None
    format: str | None
    size_bytes: int | None
    virtual_size_mib: int | None
    min_memory_mib: int | None
    os: str | None
    kernel: str | None
    labels: Labels
    copies: list[Copy]
    error: Object | None
    created_at: At
    updated_at: At


class ImageShown(Image):
    spec: Object


class Cluster(Answer):
    id: Id
    name: str
    hosts: int
    cpu_overcommit: float
    cpu_learned_max: float
    memory_overcommit: float
    labels: Labels
    rebalance: Object | None = Field(description="null: moves are planned by hand only")
    placement_policy: str | None = Field(description="null: the front-end's")
    power: Object | None = Field(description="null: hosts are put to sleep by hand only")
    created_at: At


class Reservation(Answer):
    id: Id
    name: str
    kind: str
    host: str | None
    cluster: str | None
    cpu: float
    memory_mib: int
    begins_at: At
    ends_at: At
    reason: str
    owner: str
    created_at: At


class Datastore(Answer):
    id: Id
    name: str
    kind: str
    path: str
    shared: bool
    cluster: str | None
    overcommit: float
    labels: Labels
    hosts: list[Object]
    created_at: At


class Network(Answer):
    id: Id
    name: str
    kind: str
    bridge: str
    addressing: str
    subnet: str | None
    gateway: str | None
    nameservers: list[str]
    default_for: list[str]
    cluster: str | None
    labels: Labels
    ranges: list[Object]
    leased: int
    free: int
    hosts: list[Object]
    created_at: At


class NetworkShown(Network):
    leases: list[Object]


class SnapshotShown(Answer):
    name: str
    disk: str | None = Field(description="null: of all disks")
    memory: bool = Field(description="it goes back to a running instance")
    created_at: At


class BackupShown(Answer):
    id: Id
    name: str
    instance: str
    instance_id: Id
    state: Literal["pending", "ready", "failed"]
    parent: str | None = Field(description="the backup that it goes on from; null: it is whole by itself")
    size_bytes: int | None
    files: list[Object]
    error: Object | None
    created_at: At
    verified_at: At | None


class Schedule(Answer):
    id: Id
    instance: str
    instance_id: Id
    verb: Verb
    parameters: Object
    asked_by: str
    every_s: int | None
    after_start_s: int | None
    next_at: At | None
    last_at: At | None
    last: Object | None = Field(description="what came of it last")
    enabled: bool
    created_at: At


class ConsoleTicket(Answer):
    """Opens one WebSocket at path until expires_at; or a screen at the hypervisor itself, at url."""

    ticket: str | None = Field(None, description="null: it is in the url")
    kind: Literal["serial", "vnc", "ticket"]
    path: str | None = None
    expires_at: At | None = Field(None, description="null: once, and soon")
    url: str | None = Field(None, description="of kind ticket: what its viewer connects to")
    protocol: str | None = Field(None, description="webmks: VMware's viewers take it")
    fingerprint: str | None = Field(None, description="of the certificate at url")


class Configuration(Answer):
    host: str
    actions: list[str] = Field(description="what would be done, in order")
    notes: list[str] = Field(description="what no command changes, such as the firmware's settings")
    complete: bool = Field(description="false: more may show when these are done")


class Foreign(Answer):
    """An instance on a host that is not ours. problems: why it cannot be adopted."""

    name: str
    kind: InstanceKind
    power: PowerState
    cpu: float | None
    memory_mib: int | None
    disks: list[Object]
    nics: list[Object]
    problems: list[str]


class Executed(Answer):
    exit_status: int
    stdout: str
    stderr: str


class Logs(Answer):
    text: str


class Drift(Answer):
    """recorded: what should be; seen: what was found; policy: what is done about it."""

    id: Id
    subject: str
    name: str | None
    host: str
    kind: str
    recorded: Object
    seen: Object
    policy: str
    state: Literal["open", "repaired", "gone"]
    since_at: At
    closed_at: At | None


class Health(Answer):
    status: Literal["ok"]
    version: str


class Status(Answer):
    version: str
    started_at: At
    processes: list[Object]
    hosts: dict[str, int] = Field(description="state -> how many", examples=[{"ready": 4}])
    instances: dict[str, int]
    operations: dict[str, int] = Field(description="unfinished ones, state -> how many")
    history: Object
