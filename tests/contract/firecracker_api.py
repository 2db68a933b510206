"""Holds requests of the Firecracker driver, and what they are answered, against Firecracker's published API.

Against the facts in firecracker_facts.py, or, with FIRECRACKER_SWAGGER=FILE, against that document of any version:
src/firecracker/swagger/firecracker.yaml of its repository. A field that a definition does not have is refused, as
Firecracker itself does; where a definition is not among the facts, the request is none that the driver may make.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from tests.contract import firecracker_facts

PARTS = {"drives": ("/drives/", "drive_id"), "network-interfaces": ("/network-interfaces/", "iface_id")}  # are lists
GIVEN = os.environ.get("FIRECRACKER_SWAGGER", "")


def read(file: Path) -> dict[str, Any]:
    """Return a document, its statuses as text."""
    return dict(json.loads(json.dumps(yaml.safe_load(file.read_text()))))


@cache
def document() -> dict[str, Any]:
    """Return the API that requests are held against."""
    return read(Path(GIVEN)) if GIVEN else firecracker_facts.document()


def _operation(method: str, path: str) -> Any:
    """Return an operation of the document. Raise AssertionError (there is none)."""
    for template, methods in document()["paths"].items():
        if method.lower() in methods and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            return methods[method.lower()]
    raise AssertionError(f"{method} {path} is no request of the API")


@cache
def _strict() -> dict[str, Any]:
    """Return the definitions, none of which takes more fields than it names, unless it says so."""
    return {
        name: {"additionalProperties": False, **one} if one.get("type") == "object" else one
        for name, one in document()["definitions"].items()
    }


def _validate(value: Any, schema: Mapping[str, Any]) -> None:
    jsonschema.validate(value, {**schema, "definitions": _strict()})


def check(method: str, path: str, body: Any) -> None:
    """Fail unless that request is one of the API's."""
    parameters = _operation(method, path).get("parameters", [])
    wanted = next((one for one in parameters if one["in"] == "body"), None)
    if body is None:
        assert not (wanted and wanted.get("required")), f"{method} {path} wants a body"
    else:
        assert wanted, f"{method} {path} takes no body"
        _validate(body, wanted["schema"])


def check_answer(method: str, path: str, status: int, content: bytes) -> None:
    """Fail unless that request may be answered like this."""
    responses = _operation(method, path)["responses"]
    assert str(status) in responses or status >= 400, f"{method} {path} is never answered by {status}"
    schema = responses.get(str(status), responses["default"]).get("schema")
    if schema is None:
        assert not content.strip(), f"{method} {path} has an empty answer"
    else:
        _validate(json.loads(content), schema)


def check_configuration(config: Mapping[str, Any]) -> None:
    """Fail unless each part of a configuration file is a request of the API that could be made instead."""
    for part, body in config.items():
        if part in PARTS:
            path, key = PARTS[part]
            for one in body:
                check("PUT", path + one[key], one)
        else:
            check("PUT", f"/{part.replace('mmds-config', 'mmds/config')}", body)
