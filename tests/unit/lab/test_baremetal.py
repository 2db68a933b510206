"""What the services of bare metal are started with; that they run is seen in tests/contract/test_ironic.py."""

from __future__ import annotations

from pathlib import Path
from string import Template

import pytest

from core.errors import HostFault
from lab.baremetal import services
from lab.baremetal.services import HERE, NAMES, Machine, Services, free_ports


def test_the_words_of_the_templates_are_those_that_are_given(tmp_path: Path) -> None:
    given = {"dir", "host", "user", "password", "systems", "libvirt", "inspector_host", "simulated"}
    given |= {f"{name}_port" for name in (*NAMES, "http")}
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


def test_the_password_is_not_shown(tmp_path: Path) -> None:
    found = Services(tmp_path)
    assert found.password not in repr(found)
