"""/v1/machines: passwords go in, and never come out."""

from __future__ import annotations

from sqlalchemy import select

from control import tables
from control.secrets import Seal
from tests.unit.api.rig import Rig

BOX = {"name": "m1", "bmc": "https://10.0.0.1", "user": "admin", "password": "hunter2"}


def kept(api: Rig) -> str:
    return str(api.store.read_now(lambda c: c.execute(select(tables.machine.c.sealed_password)).scalar_one()))


async def test_a_password_is_kept_encrypted_and_shown_nowhere(api: Rig) -> None:
    answer = await api.call("POST", "/machines", BOX)
    assert answer.status_code == 202, answer.text
    (op,) = answer.json()["operations"]
    for path in ("/machines", "/machines/m1", f"/operations/{op['id']}", "/machines/m1/inventory"):
        found = await api.call("GET", path)
        assert found.status_code == 200, (path, found.text)
        assert "hunter2" not in found.text
        assert "password" not in found.text
    before = kept(api)
    rotated = await api.call("POST", "/machines/rotate-key")
    assert (rotated.status_code, rotated.json()) == (200, {"passwords": 1}), rotated.text
    assert kept(api) != before
    seal = Seal(api.settings.paths.secrets_key)
    assert seal.open_up(kept(api), "machine/m1") == "hunter2"


async def test_a_refused_body_does_not_repeat_its_password(api: Rig) -> None:
    answer = await api.call("POST", "/machines", {**BOX, "bmc": "nonsense", "verify_tls": "maybe"})
    assert answer.status_code == 400, answer.text
    assert "hunter2" not in answer.text


async def test_rules_are_replaced_and_a_wrong_one_changes_nothing(api: Rig) -> None:
    rules = {"classify": [{"name": "big", "when": "cpus >= 64", "role": "kvm"}], "checks": []}
    assert (await api.call("PUT", "/machines/rules", rules)).status_code == 200
    wrong = {"checks": [{"name": "x", "require": "cpus >"}]}
    assert (await api.call("PUT", "/machines/rules", wrong)).status_code == 400
    assert [one["name"] for one in (await api.call("GET", "/machines/rules")).json()["classify"]] == ["big"]


async def test_a_machine_that_is_being_enrolled_cannot_be_retired(api: Rig) -> None:
    await api.call("POST", "/machines", BOX)
    answer = await api.call("DELETE", "/machines/m1")
    assert (answer.status_code, "operation cancel" in answer.json()["fix"]) == (409, True), answer.text
