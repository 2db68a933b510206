"""The services of bare metal, from a folder of their own: made, started, waited for and ended.

Their software is in a virtual environment beside ours (setup_baremetal in scripts/lib/setup.sh): it must not share
libraries with rackflow's. Nothing here needs root, systemd or a VM.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from core.errors import HostFault

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv-baremetal"
HERE = Path(__file__).resolve().parent
USER = "lab"
NAMES = ("ironic", "inspector", "bmc")
FIX = "run `. scripts/lib/setup.sh && setup_baremetal`"
_START_S, _STOP_S, _LOOK_S = 120.0, 30.0, 0.1
_FOLDERS = ("bmc", "inspector", "ironic/tftp/master", "ironic/images/master")

# the simulated machines of sushy-tools take 1 to 11 s to change their power; here the least of it
_BMC = "import random, sys; random.randint = lambda low, high: low\nfrom sushy_tools.emulator.main import main; main()"
_HASH = (
    "import bcrypt, sys; print(sys.argv[1] + ':' + "
    "bcrypt.hashpw(sys.stdin.read().encode(), bcrypt.gensalt(5)).decode())"
)


@dataclass(frozen=True)
class Machine:
    """A machine that the emulated BMC manages."""

    name: str
    uuid: str
    mac: str
    on: bool = False

    def entry(self) -> dict[str, object]:
        """Return it in the words of sushy-tools' fake driver."""
        return {
            "uuid": self.uuid, "name": self.name, "power_state": "On" if self.on else "Off",
            "external_notifier": False, "nics": [{"mac": self.mac, "ip": ""}],
        }  # fmt: skip


@dataclass
class Services:
    """Ironic, Inspector and a BMC on loopback, each on a free port. dir: holds everything, also the password.

    Measured: up in 17 s, down in 4 s on two busy cores; 8 s of CPU, 0.5 GB of memory.
    """

    dir: Path
    machines: Sequence[Machine] = ()
    host: str = "127.0.0.1"
    libvirt: str = ""  # a URI whose domains are the machines; "": simulated ones
    reached_at: str = ""  # an address that ramdisks reach: Ironic and Inspector listen there, by default at host
    served: tuple[Path, str] | None = None  # a folder and the URL where servers that boot find what is in it
    password: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)
    ports: Mapping[str, int] = field(default_factory=lambda: free_ports(*NAMES))
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, repr=False)

    def url(self, name: str) -> str:
        """Return a service's address. name: of NAMES."""
        host = self.host if name == "bmc" else self.reached_at or self.host
        return f"http://{host}:{self.ports[name]}"

    def start(self, *names: str) -> None:
        """Start services (all by default) side by side, and wait until they answer. Raise HostFault."""
        if not is_installed():
            raise HostFault(f"the services of bare metal are not in {VENV.name}", "lab", {}, FIX)
        self._configure()
        with ThreadPoolExecutor(len(NAMES)) as pool:
            list(pool.map(self._start, names or NAMES))

    def stop(self, *names: str) -> None:
        """End services (all by default); they take a few seconds.

        The BMC last: while it does not answer, Ironic tries it again rather than end.
        """
        given = names or NAMES
        for group in ([name for name in given if name != "bmc"], [name for name in given if name == "bmc"]):
            ending = [self._running.pop(name) for name in group if name in self._running]
            for process in ending:
                process.send_signal(signal.SIGTERM)
            for process in ending:
                try:
                    process.wait(_STOP_S)
                except subprocess.TimeoutExpired:
                    _cut(process)

    def kill(self, name: str) -> None:
        """End one as a crash does."""
        _cut(self._running.pop(name))

    def _configure(self) -> None:
        served_dir, served_url = self.served or (self.dir / "served", f"http://{self.host}:9")  # nobody boots
        for folder in (*(self.dir / one for one in _FOLDERS), served_dir / "ironic"):
            folder.mkdir(parents=True, exist_ok=True)
        self.dir.chmod(0o700)
        words = {
            "dir": self.dir, "host": self.host, "user": USER, "password": self.password, "libvirt": self.libvirt,
            "ramdisk_host": self.reached_at or self.host, "simulated": not self.libvirt,
            "served_dir": served_dir, "served_url": served_url,
            "systems": [machine.entry() for machine in self.machines],
            **{f"{name}_port": port for name, port in self.ports.items()},
        }  # fmt: skip
        for name in NAMES:
            self._conf(name).write_text(Template((HERE / f"{name}.conf").read_text()).substitute(words))
        hashed = subprocess.run(
            [_program("python"), "-c", _HASH, USER], input=self.password, text=True, capture_output=True, check=True
        )
        (self.dir / "htpasswd").write_text(hashed.stdout)

    def _conf(self, name: str) -> Path:
        return self.dir / f"{name}.conf"

    def _start(self, name: str) -> None:
        conf = ["--config-file", str(self._conf(name))]
        if name in DATABASES:
            program, order = DATABASES[name]
            make_database(self.dir / name / f"{name}.sqlite", [_program(program), *conf, order])
        argv = {
            "ironic": [_program("ironic"), *conf], "inspector": [_program("ironic-inspector"), *conf],
            "bmc": [_program("python"), "-c", _BMC, "--config", str(self._conf(name))],
        }[name]  # fmt: skip
        with (self.dir / f"{name}.out").open("wb") as out:
            self._running[name] = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.dir, process_group=0
            )  # fmt: skip
        self._wait(name)

    def _wait(self, name: str) -> None:
        end = time.monotonic() + _START_S
        while not answers(f"{self.url(name)}/"):
            if self._running[name].poll() is not None or time.monotonic() > end:
                said = (self.dir / f"{name}.out").read_text(errors="replace").splitlines()[-3:]
                raise HostFault(f"{name} does not answer on {self.url(name)}: {' / '.join(said)}", "lab")
            time.sleep(_LOOK_S)


DATABASES = {"ironic": ("ironic-dbsync", "create_schema"), "inspector": ("ironic-inspector-dbsync", "upgrade")}


def _cut(process: subprocess.Popen[bytes]) -> None:
    """Kill a service that was not waited for yet, with its workers."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def make_database(file: Path, argv: Sequence[str]) -> None:
    """Ensure a service's database. An empty one is kept beside the software: making it takes 5 s, a copy none."""
    if file.exists():
        return
    kept = VENV / "databases" / file.name
    if not kept.exists():
        made = subprocess.run(argv, capture_output=True, text=True, check=False)
        if made.returncode != 0:
            raise HostFault(f"{argv[0]} ended with {made.returncode}: {made.stderr[-500:]}", "lab")
        kept.parent.mkdir(exist_ok=True)
        part = kept.with_suffix(f".{secrets.token_hex(4)}")  # two at once write the same
        shutil.copyfile(file, part)
        part.rename(kept)
    else:
        shutil.copyfile(kept, file)


def is_installed() -> bool:
    """Say whether the services' software is there."""
    return (VENV / "bin" / "ironic-inspector").exists()


def answers(url: str) -> bool:
    """Say whether something speaks HTTP there, be it to refuse."""
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def free_ports(*names: str) -> dict[str, int]:
    """Return a free port of loopback for each name."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = {name: one.getsockname()[1] for name, one in zip(names, held, strict=True)}
    for one in held:
        one.close()
    return ports


def _program(name: str) -> str:
    return str(VENV / "bin" / name)
