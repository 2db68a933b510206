"""Whatever is sent, the API never makes an error of its own, and refuses in the shape of a problem."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api import models
from api.app import ROOMS
from tests.unit.api.rig import LAN, Rig, make, make_template

SKIPPED = {"/hosts/scan"}  # it would look up made-up names
ROUTES = sorted(
    (method, route.path)
    for room in ROOMS for route in room.router.routes for method in getattr(route, "methods", ())
    if getattr(route, "path", "") not in SKIPPED
)  # fmt: skip
NAMES = ["web", "tiny", "h1", "lan", "local", "default", "none", "all", "instance", "%00", "..%2f", "ä" * 80, "' OR"]
KEYS = [
    "name", "image", "cpu", "memory", "disk", "disks", "nics", "kind", "labels", "count", "requirements", "user_data",
    "ssh_keys", "address", "port", "user", "driver", "source", "sha256", "format", "bridge", "addressing", "subnet",
    "ranges", "gateway", "path", "hosts", "blueprint", "instances", "networks", "images", "prune", "dry_run", "sql",
    "limit", "grace_s", "argv", "timeout_s",
]  # fmt: skip
FILTERS = [
    "limit", "after", "name", "state", "label", "host", "ids", "steps", "verb", "subject", "force", "grace_s", "tail",
]  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**65), 2**65), st.floats(), st.text(max_size=20), st.sampled_from(NAMES),
    st.sampled_from(["512MiB", "1e400GiB", "10.1.0.5", "10.1.0.0/24", "vm", "SELECT 1", "\x00", "\ud800", "a" * 999]),
)  # fmt: skip
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=12,
)
GOOD = st.sampled_from([
    {"name": "web", "image": "tiny", "count": 2}, {"name": "h9", "address": "10.0.0.9"}, {"name": "i", "source": "/i"},
    LAN, {"name": "east"}, {"name": "d", "path": "/d"},
    {"blueprint": {"instances": [{"name": "web", "image": "tiny"}]}}, {"hosts": ["h1"]}, {"argv": ["id"]},
    {"sql": "SELECT 1"}, {},
])  # fmt: skip
ODD = st.dictionaries(st.sampled_from(KEYS), LEAVES, max_size=2)
BODIES = JSON | GOOD | st.builds(lambda good, odd: {**good, **odd}, GOOD, ODD)
WORDS = st.sampled_from(["a=b", "true", "nan", "inf", "1e999", "running"])
VALUES = st.text(max_size=12) | st.integers(-5, 2**70).map(str) | WORDS
PARAMETERS = st.dictionaries(st.sampled_from(FILTERS), VALUES, max_size=3)
KEY = st.text("ab", max_size=2)
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, asyncio.Runner]]:
    folder: Path = tmp_path_factory.mktemp("requests")
    rig = make(folder, make_template(folder))
    with asyncio.Runner() as runner:
        runner.run(rig.furnish())
        yield rig, runner
        runner.run(rig.client.aclose())
        runner.run(rig.store.close())


@settings(max_examples=400, deadline=None, suppress_health_check=QUIET)
@given(route=st.sampled_from(ROUTES), name=st.sampled_from(NAMES), body=BODIES, parameters=PARAMETERS, key=KEY)
def test_no_request_makes_an_error_of_ours(
    furnished: tuple[Rig, asyncio.Runner], route: tuple[str, str], name: str, body: Any, parameters: dict[str, str],
    key: str,
) -> None:  # fmt: skip
    rig, runner = furnished
    method, path = route
    if "{" in path:
        path = path.split("{")[0] + name + path.split("}")[1]

    async def send() -> None:
        headers = {"Authorization": f"Bearer {rig.token}", "Content-Type": "application/json", "Idempotency-Key": key}
        sent = json.dumps(body)
        answer = await rig.client.request(method, f"/v1{path}", content=sent, params=parameters, headers=headers)
        assert answer.status_code != 500, answer.text
        if answer.status_code >= 400:
            models.Problem.model_validate(answer.json())

    runner.run(send())
