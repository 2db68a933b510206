"""What holds the Firecracker driver against the published API refuses what that API has not; and its facts are true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.contract import firecracker_api, firecracker_facts

DRIVE = {"drive_id": "root", "is_root_device": False, "path_on_host": "/root.raw", "cache_type": "Writeback"}
TEXTS = {"description", "default", "format", "readOnly", "example"}  # of a schema, what says nothing of its form


@pytest.mark.parametrize(("method", "path", "body"), [
    ("PUT", "/drives/root", DRIVE), ("PATCH", "/vm", {"state": "Paused"}), ("GET", "/balloon", None),
    ("PUT", "/mmds", {"anything": {"at": ["all"]}}), ("PUT", "/mmds", None), ("PUT", "/entropy", {}),
])  # fmt: skip
def test_a_request_of_the_api(method: str, path: str, body: Any) -> None:
    firecracker_api.check(method, path, body)


@pytest.mark.parametrize(("method", "path", "body"), [
    ("PUT", "/drives/root", {**DRIVE, "cache_type": "writeback"}),
    ("PUT", "/drives/root", {**DRIVE, "format": "raw"}),
    ("PUT", "/drives/root", {key: value for key, value in DRIVE.items() if key != "is_root_device"}),
    ("PUT", "/drives/root", {**DRIVE, "rate_limiter": {"ops": {"size": 1}}}),
    ("PUT", "/machine-config", {"mem_size_mib": 128, "vcpu_count": 33}),
    ("PUT", "/machine-config", {"mem_size_mib": "128", "vcpu_count": 1}),
    ("PATCH", "/vm", {"state": "Running"}),
    ("PATCH", "/vm", None),
    ("POST", "/vm", {"state": "Paused"}),
    ("GET", "/balloon", {}),
    ("GET", "/drives/root", None),
    ("PUT", "/drives/root/more", DRIVE),
])  # fmt: skip
def test_no_request_of_the_api(method: str, path: str, body: Any) -> None:
    with pytest.raises((jsonschema.ValidationError, AssertionError)):
        firecracker_api.check(method, path, body)


def test_answers() -> None:
    firecracker_api.check_answer("PATCH", "/vm", 204, b"")
    firecracker_api.check_answer("PATCH", "/vm", 400, b'{"fault_message": "no"}')
    firecracker_api.check_answer("PUT", "/entropy", 500, b'{"fault_message": "no"}')
    firecracker_api.check_answer("GET", "/mmds", 200, b'{"latest": {}}')
    for method, path, status, content in (
        ("PATCH", "/vm", 200, b""), ("PATCH", "/vm", 204, b"{}"), ("PATCH", "/vm", 400, b'{"error": "no"}'),
        ("GET", "/", 200, b'{"id": "x", "state": "Running", "app_name": "Firecracker"}'), ("GET", "/", 204, b""),
    ):  # fmt: skip
        with pytest.raises((jsonschema.ValidationError, AssertionError)):
            firecracker_api.check_answer(method, path, status, content)


def test_a_document_that_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands in the place of the facts, with its statuses as numbers as it has them."""
    facts = firecracker_facts.document()
    vm = facts["paths"]["/vm"]["patch"]
    given = {**facts, "paths": {"/state": {"patch": {**vm, "responses": {204: {}, "default": {}}}}}}
    (tmp_path / "api.yaml").write_text(yaml.safe_dump(given))
    monkeypatch.setattr(firecracker_api, "document", lambda: firecracker_api.read(tmp_path / "api.yaml"))
    firecracker_api.check("PATCH", "/state", {"state": "Paused"})
    firecracker_api.check_answer("PATCH", "/state", 204, b"")
    with pytest.raises(AssertionError, match="no request"):
        firecracker_api.check("PATCH", "/vm", {"state": "Paused"})


# -- the facts are those of the document


def bare(value: Any) -> Any:
    """Return a schema without its texts."""
    if isinstance(value, list):
        return [bare(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {key: bare(one) for key, one in value.items() if key not in TEXTS}
    if "properties" in value:  # whose keys are names of fields: one may be called as a text is
        found["properties"] = {name: bare(one) for name, one in value["properties"].items()}
    return found


def requests(document: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """Return what is sent and answered: (required, schema) and schema by status."""
    found = {}
    for path, methods in document["paths"].items():
        for method, one in methods.items():
            sent = [p for p in one.get("parameters", []) if p["in"] == "body"]
            bodies = [(p.get("required", False), bare(p["schema"])) for p in sent]
            found[method, path] = (bodies, {status: bare(r.get("schema")) for status, r in one["responses"].items()})
    return found


@pytest.mark.skipif(not firecracker_api.GIVEN, reason="FIRECRACKER_SWAGGER=FILE names no document of Firecracker")
def test_the_facts_are_those_of_the_document() -> None:
    """Of the version they were read off; one of another version shows here what has changed since."""
    there, facts = firecracker_api.document(), firecracker_facts.document()
    assert there["info"]["version"] == facts["info"]["version"]
    assert requests(there) == requests(facts)
    for name, definition in facts["definitions"].items():
        assert bare(there["definitions"][name]) == definition, name
