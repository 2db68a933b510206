"""/v1/machines: passwords go in, and never come out."""

from __future__ import annotations

from dataclasses import asdict

import sqlalchemy as sa
from sqlalchemy import select

from control import eta, machines, operations, tables
from control.operations import Operation
from control.secrets import Seal
from drivers.baremetal.inventory import Cpu, Inventory
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


async def inspected(api: Rig, name: str = "m1", memory_mib: int = 65536) -> None:
    """Have a machine that was inspected once, as the worker writes it."""
    answer = await api.call("POST", "/machines", {**BOX, "name": name, "bmc": f"https://{name}"})
    assert answer.status_code == 202, answer.text

    def look(c: sa.Connection, op: Operation) -> None:
        seen = Inventory(Cpu("Xeon", "x86_64", 32), memory_mib, serial=f"S-{name}")
        machines.record_inventory(c, op, op.subject_id, asdict(seen))
        machines.set_ready(c, op, op.subject_id)

    api.work(look)


async def test_rules_are_tried_without_being_written(api: Rig) -> None:
    await inspected(api)
    await api.call("POST", "/machines", {**BOX, "name": "new", "bmc": "https://new"})
    rules = {
        "classify": [{"name": "big", "when": "cpus >= 32", "role": "kvm"}],
        "checks": [{"name": "ram", "require": "memory_mib >= 131072", "figure": "memory_mib"}],
    }
    found = {one["machine"]: one for one in await api.ok("POST", "/machines/rules/try", {"rules": rules})}
    assert found["m1"]["classified"]["role"] == "kvm"
    assert (found["m1"]["passed"], found["m1"]["checks"][0]["figure"]) == (False, 65536.0)
    assert (found["new"]["classified"], found["new"]["passed"]) == (None, None)
    assert (await api.ok("GET", "/machines/rules"))["classify"] == []
    assert (await api.ok("GET", "/machines/m1"))["checks"] == []
    wrong = await api.call("POST", "/machines/rules/try", {"rules": {"checks": [{"name": "x", "require": "nose"}]}})
    assert wrong.status_code == 400
    assert (await api.call("POST", "/machines/rules/try", {}, token=api.user("bob"))).status_code == 403


async def test_known_machines_are_looked_at_and_changed(api: Rig) -> None:
    await inspected(api)
    for path, body in (
        ("/machines/look", {"machines": ["m1"]}), ("/machines/change", {"machines": ["m1"], "action": "led-on"}),
    ):  # fmt: skip
        (op,) = (await api.ok("POST", path, body))["operations"]
        busy = await api.call("POST", path, body)
        assert (busy.status_code, op["id"] in busy.text) == (409, True)
        assert (await api.call("POST", path, body, token=api.user("bob"))).status_code == 403
        await api.ok("POST", f"/operations/{op['id']}/cancel")
        assert (await api.ok("GET", "/machines/m1"))["state"] == "ready"
    untold = await api.call("POST", "/machines/look", {"machines": ["m1"], "hardware": {"checks": ["memory"]}})
    assert (untold.status_code, "by SSH" in untold.json()["message"]) == (400, True)
    assert (await api.call("POST", "/machines/change", {"machines": ["m1"], "action": "melt"})).status_code == 400


async def test_only_administrators_look_for_bmcs(api: Rig) -> None:
    assert await api.ok("POST", "/machines/discover", {"range": "127.0.0.1", "port": 1}) == []
    denied = await api.call("POST", "/machines/discover", {"range": "127.0.0.1"}, token=api.user("bob"))
    assert denied.status_code == 403
    assert (await api.call("POST", "/machines/discover", {"range": "10.0.0.0/8"})).status_code == 400


async def test_steps_that_are_left_are_known_from_the_start(api: Rig) -> None:
    await api.ok("POST", "/machines", BOX)
    (op,) = api.store.write_now(lambda c: operations.claim_pending(c, api.worker))
    left = api.store.read_now(lambda c: eta.steps_left(c, api.admin, [op.id]))
    assert [step.step for step in left[op.id]] == ["power", "inspect", "classify", "check"]
