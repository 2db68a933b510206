"""/v1/machines"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from api import ledger_models, machine_models
from api.accept import Key, accept
from api.auth import Caller
from api.bodies import Machines, as_list
from api.context import Ctx, Limit, State
from api.machine_bodies import Change, Commission, Discover, Look, TryRules
from blueprints.machine import MachineRulesSpec, MachineSpec
from control import machines, secrets, spares
from control.access import require_admin
from control.secrets import Seal
from core.clock import now
from core.states import Verb

router = APIRouter(prefix="/machines", tags=["machines"])


@router.get("", response_model=list[machine_models.Machine])
async def list_machines(ctx: Ctx, caller: Caller, state: State = None) -> JSONResponse:
    """List machines with a BMC, oldest first."""
    return JSONResponse(await ctx.store.read(lambda c: machines.list_(c, caller, state=state)))


@router.post("", status_code=202, response_model=ledger_models.Accepted)
async def enroll_machines(ctx: Ctx, caller: Caller, body: Machines, key: Key = None) -> JSONResponse:
    """Ask for machines to be looked at through their BMCs, classified and checked; again, if they are known."""
    return await accept(ctx, caller, Verb.ENROLL_MACHINE, _sealed(as_list(body), ctx.settings.paths.secrets_key), key)


def _sealed(specs: list[MachineSpec], key_file: Path) -> dict[str, Any]:
    """Return the body of the request: passwords apart, and encrypted."""
    seal = Seal(key_file)
    sealed = {spec.name: seal.close_up(spec.password.get_secret_value()) for spec in specs if spec.password}
    return {"machines": [spec.model_dump(mode="json", exclude={"password"}) for spec in specs], "sealed": sealed}


@router.post("/look", status_code=202, response_model=ledger_models.Accepted)
async def look_at_machines(ctx: Ctx, caller: Caller, body: Look, key: Key = None) -> JSONResponse:
    """Ask for machines that are known to be inspected, classified and checked again, or for their hardware to be tried.

    An inspection through Ironic restarts the machine; one by Redfish does not.
    """
    hardware = {} if body.hardware is None else {"hardware": body.hardware.model_dump(mode="json")}
    return await accept(ctx, caller, Verb.ENROLL_MACHINE, {"names": body.machines, **hardware}, key)


@router.post("/commission", status_code=202, response_model=ledger_models.Accepted)
async def commission_machines(ctx: Ctx, caller: Caller, body: Commission, key: Key = None) -> JSONResponse:
    """Ask for spare machines to become hosts: all stages, with those that they were spared."""
    return await accept(ctx, caller, Verb.ENROLL_MACHINE, {"names": body.machines, "commission": True}, key)


@router.get("/proposals", response_model=list[machine_models.Proposal])
async def list_proposals(ctx: Ctx, caller: Caller) -> JSONResponse:
    """Say which clusters may run out within 30 days, by the forecast, and which spare machine would help."""
    outlook = await asyncio.to_thread(ctx.analytics.outlook)
    return JSONResponse(await ctx.store.read(lambda c: spares.proposals(c, caller, outlook, now())))


@router.post("/change", status_code=202, response_model=ledger_models.Accepted)
async def change_machines(ctx: Ctx, caller: Caller, body: Change, key: Key = None) -> JSONResponse:
    """Ask for something to be done by the BMCs of machines: power, identify LED, all disks wiped."""
    return await accept(ctx, caller, Verb.CHANGE_MACHINE, body.model_dump(mode="json"), key)


@router.post("/discover", response_model=list[machine_models.Found])
async def discover_machines(ctx: Ctx, caller: Caller, body: Discover) -> JSONResponse:
    """Look which addresses of a range answer as BMCs by Redfish; no password is sent, and nothing is enrolled."""
    require_admin(caller, "look for BMCs")
    from drivers.discovery import discover  # httpx takes 0.1 s to import

    found = await discover(body.range, port=body.port, scheme=body.scheme)
    rows = await ctx.store.read(lambda c: machines.list_(c, caller))
    known = {row["bmc"].rstrip("/").lower(): row["name"] for row in rows}
    return JSONResponse([{**asdict(one), "machine": known.get(one.address.lower())} for one in found])


@router.post("/rules/try", response_model=list[machine_models.Tried])
async def try_rules(ctx: Ctx, caller: Caller, body: TryRules) -> JSONResponse:
    """Say what rules would make of machines by their last inspections; nothing is written."""
    return JSONResponse(await ctx.store.read(lambda c: machines.try_rules(c, caller, body.rules, body.machines)))


@router.get("/rules", response_model=MachineRulesSpec)
async def show_rules(ctx: Ctx, caller: Caller) -> JSONResponse:
    """Show the rules by which machines are classified and checked."""
    found = await ctx.store.read(machines.rules)
    return JSONResponse(found.model_dump(mode="json"))


@router.put("/rules", response_model=MachineRulesSpec)
async def set_rules(ctx: Ctx, caller: Caller, body: MachineRulesSpec) -> JSONResponse:
    """Replace all rules; they count from the next enrollment on."""
    await ctx.store.write(lambda c: machines.set_rules(c, caller, body))
    return JSONResponse(body.model_dump(mode="json"))


@router.post("/rotate-key", response_model=machine_models.Rotated)
async def rotate_key(ctx: Ctx, caller: Caller) -> JSONResponse:
    """Encrypt every password with a new key, then forget the old one."""
    require_admin(caller, "rotate the key of passwords")
    seal = Seal(ctx.settings.paths.secrets_key)
    seal.add_key()
    count = await ctx.store.write(lambda c: secrets.encrypt_again(c, seal))
    seal.drop_old_keys()
    return JSONResponse({"passwords": count})


@router.get("/{name}", response_model=machine_models.MachineShown)
async def show_machine(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """Show a machine with its last inventory."""
    return JSONResponse(await ctx.store.read(lambda c: machines.show(c, caller, name)))


@router.get("/{name}/inventory", response_model=list[machine_models.Inspection])
async def show_inspections(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """Show every inspection of a machine, newest first, each with what differed from the one before."""
    return JSONResponse(await ctx.store.read(lambda c: machines.history(c, caller, name)))


@router.get("/{name}/health", response_model=machine_models.Health)
async def show_health(
    ctx: Ctx, caller: Caller, name: str, limit: Limit = 50,
    sensor: Annotated[str | None, Query(description="only the readings of that one, newest first")] = None,
) -> JSONResponse:  # fmt: skip
    """Show what a machine's BMC tells: each sensor now and over a week, and its event log."""
    row_id = (await ctx.store.read(lambda c: machines.get(c, name))).id
    found = await asyncio.to_thread(ctx.analytics.health, row_id, sensor, limit=limit)
    return JSONResponse({"sensors": [], "log": [], "readings": [], **found})


@router.delete("/{name}", response_model=machine_models.MachineShown)
async def retire_machine(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """Forget how to reach a machine; its name, BMC, serial and MACs are free again, its inspections stay."""

    def gone(c: Any) -> dict[str, Any]:
        row_id = machines.get(c, name).id
        machines.retire(c, caller, name)
        return machines.show(c, caller, row_id)

    return JSONResponse(await ctx.store.write(gone))
