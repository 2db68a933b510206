"""The cloud-init seed of a VM: its three texts (pure), and the ISO image that carries them.

Format: https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
The texts are kept plain enough for tiny guests that read them with sed: one `- ssh-…` line per key, and
`addresses: [A/P]` on one line.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from email import policy
from email.message import EmailMessage
from email.parser import Parser

from drivers.hypervisor.base import NicAttachment
from drivers.iso import iso_image
from drivers.storage.base import SeedSpec

LABEL = "cidata"  # by which cloud-init knows the disk

# First line of user data -> its type, as cloud-init tells them apart (cloudinit/handlers/__init__.py).
_TYPES = {
    "#cloud-config-archive": "cloud-config-archive",
    "#cloud-config": "cloud-config",
    "#cloud-boothook": "cloud-boothook",
    "#part-handler": "part-handler",
    "#include-once": "x-include-once-url",
    "#include": "x-include-url",
    "#!": "x-shellscript",
    "## template: jinja": "jinja2",
}
# The keys asked for are added to those of the user's own cloud-config instead of replacing them.
_MERGE = "list(append)+dict(no_replace,recurse_list)+str()"
_POLICY = policy.default.clone(max_line_length=None, cte_type="8bit")


def seed_texts(
    *, instance_id: str, hostname: str, ssh_keys: Sequence[str], user_data: str, nics: Sequence[NicAttachment]
) -> SeedSpec:
    """Return meta-data, user-data and network-config (version 2) of an instance."""
    meta_data = f"instance-id: {instance_id}\nlocal-hostname: {hostname}\n"
    return SeedSpec(instance_id, meta_data, _user_data(instance_id, ssh_keys, user_data), _network(nics))


def _user_data(instance_id: str, ssh_keys: Sequence[str], user_data: str) -> str:
    keys = [line for line in (_key(key) for key in ssh_keys) if line]
    ours = "#cloud-config\n" + ("ssh_authorized_keys:\n" + "".join(f"  - {k}\n" for k in keys) if keys else "{}\n")
    if not user_data.strip():
        return ours
    if not keys:
        return user_data
    message = EmailMessage(policy=_POLICY)
    message["MIME-Version"] = "1.0"
    message.make_mixed(boundary=f"rackflow-{instance_id}")
    message.attach(_part(ours))
    for part in _parts(user_data):
        message.attach(part)
    return message.as_bytes().decode()


def _key(key: str) -> str:
    """Return a public key as one plain YAML scalar: a comment that YAML would misread is left out."""
    words = key.split()
    line = " ".join(words)
    return line if ": " not in line and " #" not in line and not line.endswith(":") else " ".join(words[:2])


def _parts(user_data: str) -> list[EmailMessage]:
    """Return the user's data as MIME parts; data that is multipart already gives its own."""
    head = user_data.lstrip()[:500].lower()
    if head.startswith(("mime-version:", "content-type:")):
        message = Parser(policy=_POLICY).parsestr(user_data.lstrip())
        parts = list(message.iter_parts()) if message.is_multipart() else [message]
        return [part for part in parts if isinstance(part, EmailMessage)]
    return [_part(user_data)]


def _part(text: str) -> EmailMessage:
    kind = next((kind for mark, kind in _TYPES.items() if text.lstrip().startswith(mark)), "plain")
    part = EmailMessage(policy=_POLICY)
    part.set_content(text, subtype=kind, charset="utf-8", cte="7bit" if text.isascii() else "8bit")
    if kind == "cloud-config":
        part["Merge-Type"] = _MERGE
    return part


def _network(nics: Sequence[NicAttachment]) -> str:
    lines = ["version: 2", "ethernets:" if nics else "ethernets: {}"]
    for nic in nics:
        lines += [f"  {nic.name}:", "    match:", f"      macaddress: {_quoted(nic.mac)}", f"    set-name: {nic.name}"]
        lines += _addressing(nic)
    return "\n".join(lines) + "\n"


def _addressing(nic: NicAttachment) -> list[str]:
    if not nic.address:
        return ["    dhcp4: true"]
    lines = [f"    addresses: [{nic.address}]"]
    if nic.gateway:
        lines += ["    routes:", "      - to: 0.0.0.0/0", f"        via: {nic.gateway}"]
    if nic.nameservers:
        lines += ["    nameservers:", f"      addresses: [{', '.join(nic.nameservers)}]"]
    return lines


def _quoted(text: str) -> str:
    return json.dumps(text)  # a JSON string is a YAML one; a bare MAC address of digits would be a number


def seed_iso(spec: SeedSpec) -> bytes:
    """Return an ISO image labelled cidata."""
    texts = {"meta-data": spec.meta_data, "user-data": spec.user_data, "network-config": spec.network_config}
    return iso_image(LABEL, texts)
