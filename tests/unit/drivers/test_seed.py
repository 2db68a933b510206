"""The cloud-init seed: its texts, read as cloud-init and as a tiny guest read them, and its ISO image."""

from __future__ import annotations

import io
import re
from email import message_from_string
from email.message import Message

import pycdlib
import pytest
import yaml

from drivers.hypervisor.base import NicAttachment
from drivers.storage.base import SeedSpec
from drivers.storage.seed import seed_iso, seed_texts

ID = "06h0fb767w34khybzh0h"
KEYS = ("ssh-ed25519 AAAA1 me@home", "ssh-rsa AAAA2 odd: comment #1")
STATIC = NicAttachment("eth0", "52:54:00:00:00:01", "br0", address="192.0.2.5/24", gateway="192.0.2.1",
                       nameservers=("192.0.2.2", "192.0.2.3"))  # fmt: skip
DYNAMIC = NicAttachment("eth1", "52:54:00:00:00:02", "br1")


def seed(user_data: str = "", keys: tuple[str, ...] = KEYS, nics: tuple[NicAttachment, ...] = (STATIC,)) -> SeedSpec:
    return seed_texts(instance_id=ID, hostname="web-1", ssh_keys=keys, user_data=user_data, nics=nics)


def parts(text: str) -> list[Message]:
    found = message_from_string(text).get_payload()
    assert isinstance(found, list)
    return [part for part in found if isinstance(part, Message)]


def test_meta_data() -> None:
    assert yaml.safe_load(seed().meta_data) == {"instance-id": ID, "local-hostname": "web-1"}


def test_keys_alone_are_plain_cloud_config() -> None:
    text = seed().user_data
    assert text.startswith("#cloud-config\n")
    assert yaml.safe_load(text) == {"ssh_authorized_keys": ["ssh-ed25519 AAAA1 me@home", "ssh-rsa AAAA2"]}


def test_nothing_asked_for_is_an_empty_cloud_config() -> None:
    assert yaml.safe_load(seed(keys=()).user_data) == {}


def test_user_data_without_keys_is_left_as_it_is() -> None:
    assert seed("#!/bin/sh\necho hello\n", keys=()).user_data == "#!/bin/sh\necho hello\n"


@pytest.mark.parametrize(
    ("user_data", "kind"),
    [
        ("#cloud-config\nruncmd:\n  - touch /x\n", "text/cloud-config"),
        ("#!/bin/sh\necho ü\n", "text/x-shellscript"),
        ("#include\nhttp://192.0.2.9/x\n", "text/x-include-url"),
        ("#include-once\nhttp://192.0.2.9/x\n", "text/x-include-once-url"),
        ("#cloud-config-archive\n- x\n", "text/cloud-config-archive"),
        ("## template: jinja\n#cloud-config\n", "text/jinja2"),
        ("#cloud-boothook\nx\n", "text/cloud-boothook"),
    ],
)
def test_user_data_and_keys_become_two_parts(user_data: str, kind: str) -> None:
    ours, theirs = parts(seed(user_data).user_data)
    assert ours.get_content_type() == "text/cloud-config"
    assert "ssh-ed25519 AAAA1 me@home" in yaml.safe_load(str(ours.get_payload()))["ssh_authorized_keys"]
    assert theirs.get_content_type() == kind
    assert user_data in seed(user_data).user_data  # readable as it is: no base64


def test_keys_are_added_to_the_users_own() -> None:
    found = parts(seed("#cloud-config\nssh_authorized_keys: [x]\n").user_data)
    assert ["list(append)" in part["Merge-Type"] for part in found] == [True, True]


def test_multipart_user_data_keeps_its_parts() -> None:
    theirs = (
        'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="b"\n\n--b\nContent-Type: text/x-shellscript\n\n'
        "#!/bin/sh\n--b\nContent-Type: text/cloud-config\n\n#cloud-config\n--b--\n"
    )
    kinds = [part.get_content_type() for part in parts(seed(theirs).user_data)]
    assert kinds == ["text/cloud-config", "text/x-shellscript", "text/cloud-config"]


def test_network_config() -> None:
    found = yaml.safe_load(seed(nics=(STATIC, DYNAMIC)).network_config)
    assert found == {
        "version": 2,
        "ethernets": {
            "eth0": {
                "match": {"macaddress": "52:54:00:00:00:01"}, "set-name": "eth0", "addresses": ["192.0.2.5/24"],
                "routes": [{"to": "0.0.0.0/0", "via": "192.0.2.1"}],
                "nameservers": {"addresses": ["192.0.2.2", "192.0.2.3"]},
            },
            "eth1": {"match": {"macaddress": "52:54:00:00:00:02"}, "set-name": "eth1", "dhcp4": True},
        },
    }  # fmt: skip
    assert yaml.safe_load(seed(nics=()).network_config) == {"version": 2, "ethernets": {}}


@pytest.mark.parametrize("user_data", ["", "#cloud-config\nruncmd:\n  - touch /root/x\n"])
def test_a_guest_that_reads_with_sed(user_data: str) -> None:
    """The expressions of the lab's tiny guest (lab/images)."""
    found = seed(user_data)
    assert re.findall(r"^ *- *(ssh-[a-z0-9]* .*)", found.user_data, re.MULTILINE) == [KEYS[0], "ssh-rsa AAAA2"]
    assert re.findall(r".*addresses: *\[(.*)\].*", found.network_config)[0] == "192.0.2.5/24"
    runcmd = found.user_data.partition("\nruncmd:")[2]
    assert re.findall(r"^ *- (.*)", runcmd, re.MULTILINE) == (["touch /root/x"] if user_data else [])


def test_the_iso_image() -> None:
    iso, wanted = pycdlib.PyCdlib(), seed()
    iso.open_fp(io.BytesIO(seed_iso(wanted)))
    assert iso.pvd.volume_identifier.decode().strip() == "cidata"
    texts = {"meta-data": wanted.meta_data, "user-data": wanted.user_data, "network-config": wanted.network_config}
    for name, text in texts.items():
        for way in ("rr_path", "joliet_path"):
            out = io.BytesIO()
            iso.get_file_from_iso_fp(out, **{way: f"/{name}"})
            assert out.getvalue().decode() == text
