"""The description of the API: complete, and true of what is answered."""

from __future__ import annotations

import re
from typing import Any

from fastapi.routing import APIRoute
from jsonschema import Draft202012Validator

from analytics.owner import AnalyticsOwner
from api.app import ROOMS, TAGS
from blueprints.schema import MODELS
from tests.unit.api.rig import Rig

OPEN = {("GET", "/v1/health"), ("GET", "/v1/schema/{noun}")}


async def described(api: Rig) -> dict[str, Any]:
    answer = await api.client.get("/v1/openapi.json")
    found: dict[str, Any] = answer.json()
    return found


async def test_every_route_is_described(api: Rig) -> None:
    page = await described(api)
    routes = {
        (method, f"/v1{route.path}")
        for room in ROOMS for route in room.router.routes if isinstance(route, APIRoute)
        for method in route.methods or ()
    }  # fmt: skip
    there = {(m.upper(), path) for path, operations in page["paths"].items() for m in operations}
    assert there == routes
    assert len(there) > 35
    for path, operations in page["paths"].items():
        for method, operation in operations.items():
            assert operation["description"], path
            assert set(operation["tags"]) <= {tag["name"] for tag in TAGS}
            assert "422" not in operation["responses"]
            assert operation["responses"]["default"]["content"].keys() == {"application/problem+json"}, path
            assert bool(operation.get("security")) is ((method.upper(), path) not in OPEN), path
    ids = [operation["operationId"] for operations in page["paths"].values() for operation in operations.values()]
    assert len(set(ids)) == len(ids)


async def test_bodies_have_examples_that_are_valid(api: Rig) -> None:
    page = await described(api)
    checked = 0
    for path, operations in page["paths"].items():
        content = operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        for example in content.get("examples", {}).values():
            noun = path.split("/")[2].removesuffix("s")
            MODELS[noun].model_validate(example["value"])
            Draft202012Validator({**content["schema"], "components": page["components"]}).validate(example["value"])
            checked += 1
    assert checked >= 7


async def test_references_lead_somewhere(api: Rig) -> None:
    page = await described(api)
    wanted = set(re.findall(r"#/components/schemas/([\w.-]+)", str(page)))
    assert wanted <= set(page["components"]["schemas"])


async def test_answers_are_as_described(api: Rig, history: AnalyticsOwner) -> None:
    await api.furnish()
    await api.ok("POST", "/instances", {"name": "web", "image": "tiny"})
    request = (await api.ok("GET", "/requests"))[0]["id"]
    operation = (await api.ok("GET", "/operations"))[0]["id"]
    page = await described(api)
    names = {"instances": "web", "hosts": "h1", "images": "tiny", "networks": "lan", "datastores": "local",
             "clusters": "default", "operations": operation, "requests": request}  # fmt: skip
    checked = set()
    for path, operations in page["paths"].items():
        response = operations.get("get", {}).get("responses", {}).get("200", {})
        schema = response.get("content", {}).get("application/json", {}).get("schema")
        noun = path.split("/")[2]
        of_none = path.endswith("}") and noun not in names
        if not schema or path.count("/") > 3 or of_none or path.endswith(("/scan", "/eta")):
            continue
        answer = await api.ok("GET", re.sub(r"\{\w+\}", names.get(noun, ""), path).removeprefix("/v1"))
        Draft202012Validator({**schema, "components": page["components"]}).validate(answer)
        checked.add(path)
    assert len(checked) >= 18, checked


async def test_schema_of_a_noun(api: Rig) -> None:
    found = await api.ok("GET", "/schema/instance", token="")
    assert found["properties"]["memory"]["anyOf"]
    assert await api.ok("GET", "/schema/instances", token="") == found
