"""The requests of Firecracker's API that the driver makes, as JSON Schema: what its published document says of them.

Written down from src/firecracker/swagger/firecracker.yaml of github.com/firecracker-microvm/firecracker, version
1.17.0-dev (commit 004d935399ba6062240af269638635d54229f5bf). Only what is used here; that nothing else is sent is part
of the test, which is why no further fields are allowed. FIRECRACKER_SWAGGER=FILE checks against the document itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

TEXT, NUMBER, FLAG, ANY = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}, {"type": "object"}


def _object(required: str, **fields: Any) -> dict[str, Any]:
    return {"type": "object", "required": required.split(), "properties": fields, "additionalProperties": False}


def _one_of(*words: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(words)}


REQUESTS: dict[tuple[str, str], Any] = {
    ("PUT", "/boot-source"): _object("kernel_image_path", kernel_image_path=TEXT, boot_args=TEXT, initrd_path=TEXT),
    ("PUT", "/machine-config"): _object(
        "mem_size_mib vcpu_count", mem_size_mib=NUMBER, vcpu_count={"type": "integer", "minimum": 1, "maximum": 32}
    ),
    ("PUT", "/drives/{drive_id}"): _object(
        "drive_id is_root_device", drive_id=TEXT, is_root_device=FLAG, path_on_host=TEXT, is_read_only=FLAG,
        cache_type=_one_of("Unsafe", "Writeback"),
    ),
    ("PUT", "/network-interfaces/{iface_id}"): _object(
        "host_dev_name iface_id", host_dev_name=TEXT, iface_id=TEXT, guest_mac=TEXT
    ),
    ("PUT", "/balloon"): _object(
        "amount_mib deflate_on_oom", amount_mib=NUMBER, deflate_on_oom=FLAG, stats_polling_interval_s=NUMBER
    ),
    ("PATCH", "/balloon"): _object("amount_mib", amount_mib=NUMBER),
    ("GET", "/balloon"): None,
    ("GET", "/balloon/statistics"): None,
    ("PUT", "/entropy"): _object(""),
    ("PUT", "/mmds/config"): _object(
        "network_interfaces", version=_one_of("V1", "V2"), network_interfaces={"type": "array", "items": TEXT}
    ),
    ("PUT", "/mmds"): ANY,
    ("PUT", "/actions"): _object("action_type", action_type=_one_of("FlushMetrics", "InstanceStart", "SendCtrlAltDel")),
    ("PATCH", "/vm"): _object("state", state=_one_of("Paused", "Resumed")),
    ("PUT", "/snapshot/create"): _object(
        "mem_file_path snapshot_path", mem_file_path=TEXT, snapshot_path=TEXT, snapshot_type=_one_of("Full", "Diff")
    ),
    ("PUT", "/snapshot/load"): _object(
        "snapshot_path", snapshot_path=TEXT, resume_vm=FLAG,
        mem_backend=_object("backend_type backend_path", backend_type=_one_of("File", "Uffd"), backend_path=TEXT),
    ),
    ("GET", "/"): None,
}  # fmt: skip
PARTS = {"drives": ("/drives/", "drive_id"), "network-interfaces": ("/network-interfaces/", "iface_id")}  # are lists


@cache
def document() -> dict[str, Any]:
    """Return the published document, {} where none is given."""
    file = os.environ.get("FIRECRACKER_SWAGGER")
    return dict(yaml.safe_load(Path(file).read_text())) if file else {}


def _published(method: str, template: str) -> Any:
    """Return the schema of a request as the document has it."""
    parameters = document()["paths"][template][method.lower()].get("parameters", [])
    found = next((one["schema"] for one in parameters if one["in"] == "body"), None)
    return found and {**found, "definitions": document()["definitions"]}


def check(method: str, path: str, body: Any) -> None:
    """Fail unless that request is one of the API's."""
    template = next(t for m, t in REQUESTS if m == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", t), path))
    schema = REQUESTS[method, template]
    assert (body is None) == (schema is None), f"{method} {path}"
    if schema is not None:
        jsonschema.validate(body, schema)
        if document():
            jsonschema.validate(body, _published(method, template))


def check_configuration(config: Mapping[str, Any]) -> None:
    """Fail unless each part of a configuration file is a request of the API that could be made instead."""
    for part, body in config.items():
        if part in PARTS:
            path, key = PARTS[part]
            for one in body:
                check("PUT", path + one[key], one)
        else:
            check("PUT", f"/{part.replace('mmds-config', 'mmds/config')}", body)
