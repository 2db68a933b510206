"""The private PostgreSQL that keeps Prefect's own data: one cluster, one unix socket, no TCP, no password.

Local connections are told apart by the kernel (peer authentication, PostgreSQL manual 21.9), mapped by pg_ident.conf.
synchronous_commit is off: what a crash can lose is Prefect's last half second, which is no record of ours.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import HostFault
from core.settings import Paths
from daemon.files import write_private

ROLE = "prefect"
_FIX = "apt-get install --no-install-recommends postgresql"
_CONF = {
    "listen_addresses": "''",
    "unix_socket_permissions": "0777",  # who may is decided by pg_hba.conf
    "shared_buffers": "'32MB'",
    "max_connections": "60",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "'256MB'",
    "checkpoint_timeout": "'30min'",
    "autovacuum_naptime": "'5min'",
    "jit": "off",
    "logging_collector": "off",
    "log_timezone": "'UTC'",
    "timezone": "'UTC'",
}


@dataclass(frozen=True)
class Account:
    """The user under which PostgreSQL runs: it refuses root."""

    name: str
    uid: int
    gid: int


def binaries(root: Path = Path("/usr/lib/postgresql"), version: str = "") -> Path:
    """Return the folder with initdb and postgres: of that major version, else the newest. Raise HostFault."""
    found = {d.name: d / "bin" for d in root.glob("*") if (d / "bin" / "initdb").exists()}
    if version in found:
        return found[version]
    if version:
        raise HostFault(
            f"PostgreSQL {version} is not installed, but data of that version exists", "postgres",
            {"installed": sorted(found)}, fix=f"install postgresql-{version}",
        )
    if found:
        return found[max(found, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])]
    if initdb := shutil.which("initdb"):
        return Path(initdb).resolve().parent
    raise HostFault("PostgreSQL is not installed (Prefect's server needs it)", "postgres", fix=_FIX)


def account() -> Account:
    """Return whom PostgreSQL runs as: the caller, or the user "postgres" when the caller is root."""
    entry = pwd.getpwuid(os.geteuid())
    if entry.pw_uid == 0:
        try:
            entry = pwd.getpwnam("postgres")
        except KeyError as error:
            raise HostFault("there is no user named postgres", "postgres", fix=_FIX) from error
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


class PrivateCluster:
    """One PostgreSQL data folder and how it is run."""

    def __init__(self, paths: Paths) -> None:
        self.data = paths.data_dir / "postgres"
        self.conf = paths.data_dir / "postgres.conf.d"  # outside of data: what root writes, "postgres" cannot redirect
        self.marker = self.conf / "initialised"
        self.socket_dir = paths.run_dir / "pg"
        self.account = account()
        version = self.data / "PG_VERSION"
        self.bin = binaries(version=version.read_text().strip() if version.exists() else "")

    @property
    def url(self) -> str:
        """Return the address for SQLAlchemy's asyncpg dialect."""
        return f"postgresql+asyncpg://{ROLE}@/postgres?host={self.socket_dir}"

    @property
    def argv(self) -> list[str]:
        """Return the command of the server, in the foreground."""
        return [str(self.bin / "postgres"), "-D", str(self.data), "-c", f"config_file={self.conf / 'postgresql.conf'}"]

    def prepare(self) -> bool:
        """Make what is missing and write the configuration; return whether the cluster is new. Raise HostFault."""
        self._own(self.socket_dir)
        fresh = not self.marker.exists()
        if fresh:
            shutil.rmtree(self.data, ignore_errors=True)  # an initdb that did not end
            self._own(self.data)
            self._initdb()
        self._configure()
        self.marker.touch()
        return fresh

    def is_ready(self) -> bool:
        """Say whether connections are accepted: the server writes so into the last line of postmaster.pid."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"

    def _own(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        os.chown(folder, self.account.uid, self.account.gid)

    def _initdb(self) -> None:
        command = [
            str(self.bin / "initdb"), "-D", str(self.data), "-U", ROLE, "--auth=peer", "-E", "UTF8", "--locale=C",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", **self.identity())
        if done.returncode != 0:
            raise HostFault(
                f"initdb failed in {self.data}: {done.stderr.strip()[-500:]}", "postgres",
                fix=f"the user {self.account.name} must be able to reach {self.data}; is a folder above it private?",
            )

    def identity(self) -> dict[str, Any]:
        """Return the arguments of subprocess that make a child run as the account."""
        if os.geteuid() == self.account.uid:
            return {}
        return {"user": self.account.uid, "group": self.account.gid, "extra_groups": []}

    def _configure(self) -> None:
        users = dict.fromkeys((pwd.getpwuid(os.geteuid()).pw_name, self.account.name))
        settings = _CONF | {
            "data_directory": _quoted(self.data), "unix_socket_directories": _quoted(self.socket_dir),
            "hba_file": _quoted(self.conf / "pg_hba.conf"), "ident_file": _quoted(self.conf / "pg_ident.conf"),
        }  # fmt: skip
        files = {
            "postgresql.conf": "".join(f"{name} = {value}\n" for name, value in settings.items()),
            "pg_hba.conf": "local all all peer map=rackflow\n",
            "pg_ident.conf": "".join(f"rackflow {user} {ROLE}\n" for user in users),
        }
        self.conf.mkdir(mode=0o755, exist_ok=True)
        for name, text in files.items():
            write_private(self.conf / name, text, mode=0o644)


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
