"""Settings as frozen dataclasses; `daemon/settings.py` fills them and passes them down."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """Where rackflow keeps things. data_dir survives, run_dir need not (sockets, pids; keep it short)."""

    data_dir: Path
    run_dir: Path

    @property
    def images_dir(self) -> Path:
        return self.data_dir / "images"

    @property
    def parked_dir(self) -> Path:
        """Return where disks and memory of instances without a host are kept."""
        return self.data_dir / "parked"

    @property
    def backups_dir(self) -> Path:
        return self.data_dir / "backups"

    @property
    def token_file(self) -> Path:
        return self.data_dir / "admin.token"

    @property
    def secrets_key(self) -> Path:
        """Return the file with the keys by which passwords in the record are encrypted."""
        return self.data_dir / "secrets.key"

    @cached_property  # asked for with every call to a host
    def ssh_key(self) -> Path:
        return self.data_dir / "ssh" / "id_ed25519"

    @property
    def wake_socket(self) -> Path:
        return self.run_dir / "wake.sock"

    @property
    def analytics_socket(self) -> Path:
        return self.run_dir / "analytics.sock"

    @property
    def duckdb_file(self) -> Path:
        return self.data_dir / "history.duckdb"


@dataclass(frozen=True)
class DriverSettings:
    """How hosts are spoken to. Times in seconds."""

    domain_type: str = "auto"  # kvm, qemu or auto (try to boot a tiny kernel under kvm)
    connect_timeout_s: float = 10.0
    command_timeout_s: float = 60.0
    keepalive_interval_s: float = 5.0
    keepalive_count: int = 3
    channels_per_connection: int = 8  # OpenSSH allows 10 sessions by default
    threads_per_host: int = 4
    datastore_path: str = "/var/lib/rackflow/datastore"  # of the default dir datastore on a host
    simulated_latency_s: float = 0.0  # of each call to a simulated host
    simulated_instances: str = ""  # file of what simulated hosts have from the start (drivers/fake_planted.py)


@dataclass(frozen=True)
class WorkerSettings:
    """Ledger and dispatcher. Times in seconds."""

    claim_s: float = 15.0
    renew_s: float = 5.0
    look_s: float = 2.0  # for expired claims
    instances_per_host: int = 8  # concurrent steps on one host
    step_deadline_s: float = 120.0
    host_silent_s: float = 60.0  # a host that does not answer for longer may be dead, if a second signal says so
    stop_s: float = 10.0  # running flows get this long to end when the worker is told to stop


@dataclass(frozen=True)
class Settings:
    """Everything; one object for each process."""

    paths: Paths
    database_url: str
    api_host: str = "127.0.0.1"
    api_port: int = 4210
    prefect_port: int = 4200
    work_pool: str = "rackflow"
    reconcile_every_s: int = 60
    placement_policy: str = "balanced"  # by its name in control/placement/weights.py
    drivers: DriverSettings = field(default_factory=DriverSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
