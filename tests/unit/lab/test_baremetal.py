"""What the services of bare metal are started with; that they run is seen in tests/contract/test_ironic.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from string import Template

import pytest

from blueprints.machine import MachineSpec
from core.errors import HostFault
from lab.baremetal import room, services
from lab.baremetal.services import HERE, NAMES, Machine, Services, free_ports
from lab.baremetal.site import Site, folder, servers
from lab.hosts import wait_until
from lab.settings import LabSettings


def test_the_words_of_the_templates_are_those_that_are_given(tmp_path: Path) -> None:
    given = {"dir", "host", "user", "password", "systems", "libvirt", "ramdisk_host", "simulated"}
    given |= {"served_dir", "served_url", *(f"{name}_port" for name in NAMES)}
    asked = {word for name in NAMES for word in Template((HERE / f"{name}.conf").read_text()).get_identifiers()}
    assert asked == given


def test_each_service_has_a_port_of_its_own() -> None:
    ports = free_ports(*NAMES)
    assert len(set(ports.values())) == len(NAMES)


def test_a_machine_in_the_emulators_words() -> None:
    entry = Machine("m1", "u1", "52:54:00:00:00:01", on=True).entry()
    assert (entry["power_state"], entry["nics"]) == ("On", [{"mac": "52:54:00:00:00:01", "ip": ""}])


def test_missing_software_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "VENV", tmp_path)
    with pytest.raises(HostFault, match="setup_baremetal"):
        Services(tmp_path).start()


def started(script: str, *words: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(["sh", "-c", script, *words], stdout=subprocess.PIPE, process_group=0)
    assert process.stdout is not None
    process.stdout.readline()  # it hears signals from here on
    return process


def test_the_bmc_ends_when_those_that_ask_it_have_ended(tmp_path: Path) -> None:
    gone, loop = str(tmp_path / "gone"), "echo up; while :; do sleep 0.02; done"
    found = Services(tmp_path)
    found._running["bmc"] = bmc = started(f"trap 'echo > $0; exit' TERM; {loop}", gone)
    found._running["ironic"] = ironic = started(f"trap 'sleep 0.3; test ! -e $0; exit' TERM; {loop}", gone)
    found.stop()
    assert (ironic.returncode, bmc.returncode, Path(gone).exists()) == (0, 0, True)


def test_what_does_not_end_is_killed_with_its_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_STOP_S", 0.2)
    found = Services(tmp_path)
    note = tmp_path / "worker"
    found._running["ironic"] = ironic = started("trap '' TERM; sleep 60 & echo $! > $0; echo up; wait", str(note))
    worker = int(note.read_text())
    found.stop()
    assert ironic.returncode == -9
    wait_until(lambda: not runs(worker), limit_s=5)
    assert not runs(worker)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_password_is_not_shown(tmp_path: Path) -> None:
    found = Services(tmp_path)
    assert found.password not in repr(found)


def test_servers_are_the_same_each_time() -> None:
    assert servers(2)[:1] == servers(1)
    assert len({(one.uuid, one.mac, one.name) for one in servers(9)}) == 9


def test_a_room_lies_beside_the_lab(tmp_path: Path) -> None:
    settings = LabSettings(tmp_path / "lab", tmp_path / "lab" / "shared", tmp_path / "cache")
    assert folder(settings) == tmp_path / "lab-baremetal"
    assert room.pid(settings) is None


def test_how_a_server_is_enrolled(tmp_path: Path) -> None:
    site = Site(LabSettings(tmp_path / "lab", tmp_path, tmp_path / "cache"), servers(1))
    site.dir.mkdir()
    (site.dir / "ramdisk_key.pub").write_text("ssh-ed25519 AAAA ramdisk_key\n")
    entry = site.machine(site.servers[0])
    install = site.installed_by(site.servers[0], "http://x/y.raw.zst", "0" * 64)
    spec = MachineSpec.model_validate({**entry, "install": install})
    assert spec.install is not None
    assert (spec.install.address, spec.install.ramdisk_key) == ("198.19.50.11/24", "ssh-ed25519 AAAA")
    assert spec.node is not None
    assert spec.node.macs == ("52:54:00:72:66:01",)
    assert (site.dir / "bmc.password").stat().st_mode & 0o777 == 0o600


def test_what_a_killed_room_left_is_ended_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[str] = []
    monkeypatch.setattr(room, "ip", lambda *commands, check: removed.extend(commands))
    settings = LabSettings(tmp_path / "lab", tmp_path, tmp_path)
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    ours = subprocess.Popen([*sleep, "http.server", f"{folder(settings)}/pxe"])
    theirs = subprocess.Popen([*sleep, "less", f"{folder(settings)}/room.log"])
    try:
        assert room.down(settings)
        assert ours.wait(5) == -9
        assert theirs.poll() is None
        assert removed == ["link del rfpxe"]
        assert not room.down(settings)
    finally:
        for process in (ours, theirs):
            process.kill()
            process.wait()
