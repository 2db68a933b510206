"""What an image's cloud-init is told, and how Ironic's agent is told which disk."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import asyncssh
import pycdlib
import pytest
import yaml

from drivers.baremetal.config_drive import config_drive, texts
from drivers.baremetal.first_boot import FirstBoot, make_host_key
from drivers.baremetal.inventory import Disk
from drivers.baremetal.ironic_deploy import root_device

WANT = FirstBoot("r1", "52:54:00:00:00:01", "10.0.0.5/24", "ssh-ed25519 AAAA", "10.0.0.1", ("10.0.0.2",))


def test_who_may_enter_and_the_host_key_that_is_pinned() -> None:
    key = make_host_key()
    text = texts(WANT, key, "op1")["user_data"]
    assert text.startswith("#cloud-config\n")
    found = yaml.safe_load(text)
    assert (found["ssh_authorized_keys"], found["users"], found["disable_root"]) == (["ssh-ed25519 AAAA"], [], False)
    assert asyncssh.import_private_key(found["ssh_keys"]["ed25519_private"]).get_fingerprint() == key.fingerprint
    assert found["ssh_keys"]["ed25519_public"] == f"{key.public} r1\n"


def test_the_card_that_boots_gets_the_address() -> None:
    found = json.loads(texts(WANT, make_host_key(), "op1")["network_data.json"])
    assert found["links"][0]["ethernet_mac_address"] == WANT.mac
    (network,) = found["networks"]
    assert (network["type"], network["ip_address"], network["netmask"]) == ("ipv4", "10.0.0.5", "255.255.255.0")
    assert network["routes"] == [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.0.1"}]
    assert found["services"] == [{"type": "dns", "address": "10.0.0.2"}]


def test_without_a_way_out() -> None:
    found = json.loads(texts(replace(WANT, gateway="", nameservers=()), make_host_key(), "op1")["network_data.json"])
    assert (found["networks"][0]["routes"], found["services"]) == ([], [])


def test_a_drive_as_cloud_init_looks_for_it() -> None:
    key = make_host_key()
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(config_drive(WANT, key, "op1")))
    assert iso.pvd.volume_identifier.decode().strip() == "config-2"
    for name, text in texts(WANT, key, "op1").items():
        out = io.BytesIO()
        iso.get_file_from_iso_fp(out, rr_path=f"/openstack/latest/{name}")
        assert out.getvalue().decode() == text


@pytest.mark.parametrize(
    ("disk", "hint"),
    [
        (Disk("/dev/sda", 1, serial="S1", wwn="0x5000"), {"wwn": "0x5000"}),
        (Disk("/dev/sda", 1, serial="S1"), {"serial": "S1"}),
        (Disk("/dev/sda", 1), {"name": "/dev/sda"}),
    ],
)
def test_a_disk_by_what_does_not_change(disk: Disk, hint: dict[str, str]) -> None:
    assert root_device(disk) == hint
