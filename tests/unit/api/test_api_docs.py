"""docs/api.md: its examples run in order and are answered as it says; its routes are all there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.unit.api.rig import Rig

PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
BLOCKS = re.findall(r"^```\n(.+?)\n```$", PAGE, re.MULTILINE | re.DOTALL)
ANY = "…"


def same(said: Any, seen: Any) -> bool:
    """Compare, where "…" in the page stands for anything but null."""
    if said == ANY:
        return seen is not None
    if isinstance(said, dict):
        return isinstance(seen, dict) and said.keys() == seen.keys() and all(same(said[k], seen[k]) for k in said)
    if isinstance(said, list):
        return isinstance(seen, list) and len(said) == len(seen) and all(map(same, said, seen))
    return bool(said == seen)


async def test_examples_are_true(api: Rig) -> None:
    await api.furnish()
    assert len(BLOCKS) >= 6
    for block in BLOCKS:
        asked, _, answered = block.partition("\n\n")
        first, *lines = asked.splitlines()
        method, path = first.split()
        headers = dict(line.split(": ", 1) for line in lines if not line.startswith("{"))
        body = [json.loads(line) for line in lines if line.startswith("{")] or [None]
        status, _, said = answered.partition("\n")
        answer = await api.call(method, path.removeprefix("/v1"), body[0], **headers)
        assert answer.status_code == int(status), answer.text
        assert same(json.loads(said), answer.json()), (first, answer.json())


async def test_routes_are_listed(api: Rig) -> None:
    table = PAGE.partition("## All routes")[2]
    listed = set()
    for cell in re.findall(r"^\| (`/v1.+?`) \|", table, re.MULTILINE):
        first, *others = re.findall(r"`(/[^`]+)`", cell)
        listed |= {first} | {o if o.startswith("/v1") else first.rpartition("/")[0] + o for o in others}
    described = (await api.client.get("/v1/openapi.json")).json()["paths"]
    assert listed == set(described)
