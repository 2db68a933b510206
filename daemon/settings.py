"""Settings: flags before RACKFLOW_* before the file before defaults; out comes `core.settings.Settings`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from core.errors import Invalid
from core.settings import DriverSettings, Paths, Settings, WorkerSettings

AUTO = 0  # a port that `up` chooses and remembers
_LONGEST_RUN_DIR = 75  # a unix socket's path has 107 characters at most; ours add up to 25, LXD's and libvirt's too
_PASSED_ON = ("RACKFLOW_CONFIG", "RACKFLOW_CACHE", "RACKFLOW_LOG_LEVEL")  # read elsewhere than here
Port = int | Literal["auto"]


def default_data_dir() -> Path:
    """Return /var/lib/rackflow for root, the XDG data folder for others."""
    if os.geteuid() == 0:
        return Path("/var/lib/rackflow")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "rackflow"


def default_run_dir() -> Path:
    """Return /run/rackflow for root, the XDG runtime folder (or one in /tmp) for others."""
    if os.geteuid() == 0:
        return Path("/run/rackflow")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "rackflow" if runtime else Path(f"/tmp/rackflow-{os.geteuid()}")


def config_file() -> Path:
    """Return the file that is read when it exists: RACKFLOW_CONFIG, /etc/rackflow/config.toml, or XDG."""
    if named := os.environ.get("RACKFLOW_CONFIG"):
        return Path(named)
    if os.geteuid() == 0:
        return Path("/etc/rackflow/config.toml")
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "rackflow" / "config.toml"


class Configuration(BaseSettings):
    """What can be configured. A nested value is RACKFLOW_DRIVERS__DOMAIN_TYPE, or [drivers] in the file."""

    model_config = SettingsConfigDict(env_prefix="RACKFLOW_", env_nested_delimiter="__", extra="forbid")

    data_dir: Path = Field(default_factory=default_data_dir)
    run_dir: Path = Field(default_factory=default_run_dir)
    database_url: str = ""  # "" = SQLite in data_dir
    api_host: str = "127.0.0.1"
    api_port: Port = "auto"
    prefect_port: Port = "auto"
    work_pool: str = "rackflow"
    reconcile_every_s: int = Field(default=60, ge=10)
    placement_policy: str = "balanced"
    domain_type: Literal["kvm", "qemu", "auto"] | None = None  # short for drivers.domain_type
    drivers: DriverSettings = Field(default_factory=DriverSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: flags (given to __init__), environment, file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_file())


def _invalid(error: ValidationError) -> Invalid:
    problems = [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()]
    return Invalid(
        "the settings are wrong: " + "; ".join(problems), "settings",
        fix=f"look at the flags, the RACKFLOW_* variables and {config_file()}",
    )


def _port(value: Port) -> int:
    return AUTO if value == "auto" else value


def load(flags: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings; flags that are None count as not given. A port "auto" comes out as 0. Raise Invalid."""
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    try:
        found = Configuration(**given)
    except ValidationError as error:
        raise _invalid(error) from error
    except ValueError as error:  # tomllib's, and unreadable JSON in a variable
        raise Invalid(f"{config_file()} or a RACKFLOW_* variable cannot be read: {error}", "settings") from error
    paths = Paths(found.data_dir.expanduser().absolute(), found.run_dir.expanduser().absolute())
    if len(str(paths.run_dir)) > _LONGEST_RUN_DIR:
        raise Invalid(
            f"the path {paths.run_dir} is too long for the sockets in it", "settings",
            fix=f"set RACKFLOW_RUN_DIR to a path of at most {_LONGEST_RUN_DIR} characters",
        )
    drivers = dataclasses.replace(found.drivers, domain_type=found.domain_type or found.drivers.domain_type)
    return Settings(
        paths=paths,
        database_url=found.database_url or f"sqlite:///{paths.data_dir / 'rackflow.db'}",
        api_host=found.api_host, api_port=_port(found.api_port), prefect_port=_port(found.prefect_port),
        work_pool=found.work_pool, reconcile_every_s=found.reconcile_every_s,
        placement_policy=found.placement_policy, drivers=drivers, worker=found.worker,
    )


def to_environment(settings: Settings) -> dict[str, str]:
    """Return the RACKFLOW_* variables from which `load` makes the same settings again, for the children."""
    env = {
        "RACKFLOW_DATA_DIR": str(settings.paths.data_dir),
        "RACKFLOW_RUN_DIR": str(settings.paths.run_dir),
    }
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name == "paths":
            continue
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            env[f"RACKFLOW_{field.name.upper()}"] = json.dumps(dataclasses.asdict(value))
        else:
            env[f"RACKFLOW_{field.name.upper()}"] = str(value)
    return env


def child_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of the processes: the caller's without its own PREFECT_* and RACKFLOW_*, plus ours."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "RACKFLOW_", "PG"))}
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(p for p in (root, kept.get("PYTHONPATH", "")) if p)
    others = {k: v for k, v in os.environ.items() if k in _PASSED_ON}
    return kept | others | to_environment(settings) | {
        "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "PATH": os.environ.get("PATH", os.defpath),
    }  # fmt: skip
