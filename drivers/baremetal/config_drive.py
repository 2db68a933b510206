"""What an image's cloud-init is told on its first start, where somebody else than our ramdisk writes the disk.

Format: https://docs.openstack.org/nova/latest/user/metadata.html (config drives; network_data.json)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import ip_interface

from drivers.baremetal.first_boot import FirstBoot, HostKey
from drivers.iso import iso_image

LABEL, FOLDER = "config-2", "openstack/latest"


def texts(want: FirstBoot, key: HostKey, instance_id: str) -> Mapping[str, str]:
    """Return name -> content: name, address, host key, and who may enter. Pure."""
    user_data = {  # users: no account beside root; cloud-init's schema warns of the empty list, and obeys it
        "users": [], "disable_root": False, "ssh_authorized_keys": [want.authorized_key],
        "ssh_keys": {"ed25519_private": key.private, "ed25519_public": f"{key.public} {want.hostname}\n"},
    }  # fmt: skip
    meta_data = {"uuid": instance_id, "hostname": want.hostname, "name": want.hostname}
    return {
        "meta_data.json": json.dumps(meta_data), "network_data.json": json.dumps(_network(want)),
        "user_data": "#cloud-config\n" + json.dumps(user_data) + "\n",  # JSON is YAML
    }  # fmt: skip


def config_drive(want: FirstBoot, key: HostKey, instance_id: str) -> bytes:
    """Return it as an ISO 9660 image."""
    return iso_image(LABEL, texts(want, key, instance_id), FOLDER)


def _network(want: FirstBoot) -> dict[str, object]:
    address = ip_interface(want.address)
    anywhere = ip_interface(f"{'::' if address.version == 6 else '0.0.0.0'}/0")
    route = {"network": str(anywhere.ip), "netmask": str(anywhere.netmask), "gateway": want.gateway}
    return {
        "links": [{"id": "boot", "type": "phy", "ethernet_mac_address": want.mac}],
        "networks": [{
            "id": "boot", "link": "boot", "type": f"ipv{address.version}", "ip_address": str(address.ip),
            "netmask": str(address.netmask), "routes": [route] if want.gateway else [],
        }],
        "services": [{"type": "dns", "address": one} for one in want.nameservers],
    }  # fmt: skip
