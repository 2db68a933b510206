"""From the flat fields of Prefect's forms to request bodies, as the API takes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from core.errors import Invalid
from drivers.registry import drivers

HIDDEN = ("fake",)  # drivers that no form offers


class _Installed:
    """Lets a form offer the drivers that are installed, packages' too; they are looked up when the form is made."""

    def __get_pydantic_json_schema__(self, core: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        usable = [one.name for one in drivers().values() if not one.error and one.name not in HIDDEN]
        return {**handler(core), "enum": ["auto", *usable]}


DriverName = Annotated[str, _Installed()]


def names(text: str) -> list[str]:
    """Return the names in "a, b c"."""
    return [part for part in re.split(r"[\s,]+", text) if part]


def deploy_body(
    name: str,
    image: str,
    kind: str,
    count: int,
    cpu: float,
    memory: str,
    disk: str,
    network: str,
    cluster: str,
    host: str,
    ssh_key: str,
    user_data: str,
) -> dict[str, Any]:
    """Return the body of a deploy request; empty fields are left out."""
    instance: dict[str, Any] = {"name": name, "image": image, "kind": kind, "cpu": cpu, "memory": memory}
    if count > 1:
        instance["count"] = count
    optional = {
        "disk": disk,
        "nics": [{"network": network}] if network else None,
        "ssh_keys": [ssh_key] if ssh_key else None,
        "user_data": user_data,
        "requirements": {k: v for k, v in (("cluster", cluster), ("host", host)) if v},
    }
    instance.update({key: value for key, value in optional.items() if value})
    return {"instances": [instance]}


def change_body(verb: str, instances: str, parameters: str) -> dict[str, Any]:
    """Return the body of a change. parameters: "name=value …"; for a new disk or NIC they are the fields of that.

    Raise Invalid for a word without "=".
    """
    given: dict[str, Any] = {}
    for word in parameters.split():
        name, equals, value = word.partition("=")
        if not equals:
            raise Invalid(f"{word!r} is not name=value", "request", {"parameters": parameters})
        given[name] = value
    inside = {"attach-disk": "disk", "attach-nic": "nic"}.get(verb)
    return {"instances": names(instances), **({inside: given} if inside else given)}


def enroll_body(
    name: str,
    address: str,
    user: str,
    port: int,
    driver: str,
    key_file: str,
    fingerprint: str,
    cluster: str,
    bridge_address: str,
    password_file: str = "",
    place: str = "",
) -> dict[str, Any]:
    """Return the body of an enroll request."""
    host: dict[str, Any] = {"name": name, "address": address, "user": user, "port": port}
    optional = {"key_file": key_file, "fingerprint": fingerprint, "cluster": cluster,
                "password_file": password_file, "place": place,
                "driver": driver if driver != "auto" else "",
                "bridges": [{"name": "lxcbr0", "address": bridge_address}] if bridge_address else None}  # fmt: skip
    host.update({key: value for key, value in optional.items() if value})
    return {"hosts": [host]}


def machine_body(
    name: str, bmc: str, user: str, password_file: str, system: str, verify_tls: bool
) -> dict[str, Any]:  # fmt: skip
    """Return the body of a request to enroll a machine by its BMC."""
    machine = {"name": name, "bmc": bmc, "user": user, "system": system, "verify_tls": verify_tls}
    return {"machines": [{**machine, **({"password_file": password_file} if password_file else {})}]}


def image_body(name: str, source: str, kind: str, sha256: str) -> dict[str, Any]:
    """Return the body of an import request."""
    image: dict[str, Any] = {"name": name, "source": source, "kind": kind}
    if sha256:
        image["sha256"] = sha256
    return {"images": [image]}
