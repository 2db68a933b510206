"""/v1/instances/{name}/VERB: every verb that changes an instance, out of the table of their parameters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from api import ledger_models, models
from api.accept import Key, accept
from api.auth import Caller
from api.bodies import Mark
from api.context import Ctx
from blueprints.change import PARAMETERS, ChangeSpec, NothingMore
from control import holding, recovery
from core.states import InstanceState, Verb

router = APIRouter(prefix="/instances", tags=["instances"])
SAID: dict[Verb, str] = {
    Verb.START: "run; one that was stopped or undeployed comes back to a host",
    Verb.SHUTDOWN: "be shut down: the guest is asked, then cut off; it keeps its host, disks and addresses",
    Verb.POWEROFF: "be cut off at once",
    Verb.REBOOT: "be rebooted",
    Verb.SUSPEND: "be paused in its host's memory",
    Verb.RESUME: "go on after it was suspended, stopped or undeployed",
    Verb.STOP: "be saved with memory and disks, and its host to be freed",
    Verb.UNDEPLOY: "be shut down, its disks to be saved, and its host to be freed",
    Verb.MIGRATE: "be moved to another host",
    Verb.RENAME: "bear another name",
    Verb.RESIZE: "get other cpu or memory",
    Verb.ATTACH_DISK: "get a further disk",
    Verb.DETACH_DISK: "lose a disk with its content",
    Verb.GROW_DISK: "get a larger disk",
    Verb.ATTACH_NIC: "get a further NIC",
    Verb.DETACH_NIC: "lose a NIC",
    Verb.SNAPSHOT: "be snapshotted",
    Verb.REVERT: "go back to a snapshot; what came later is lost",
    Verb.DROP_SNAPSHOT: "lose a snapshot",
    Verb.SAVE_IMAGE: "be saved as a new image",
    Verb.BACKUP: "be backed up to the front-end's store",
    Verb.REVERT_BACKUP: "go back to a backup; what came later is lost",
    Verb.FAILOVER: "start on another host from shared storage, since its own is fenced",
}  # what is asked of an instance
Ask = Callable[..., Awaitable[JSONResponse]]


def _plain(verb: Verb) -> Ask:
    async def ask(ctx: Ctx, caller: Caller, name: str, key: Key = None) -> JSONResponse:
        return await accept(ctx, caller, verb, {"instances": [name]}, key)

    return ask


def _with_body(verb: Verb, model: type[ChangeSpec]) -> Ask:
    async def ask(ctx: Ctx, caller: Caller, name: str, body: Any, key: Key = None) -> JSONResponse:
        given = {} if body is None else body.model_dump(mode="json", exclude_unset=True)
        return await accept(ctx, caller, verb, {"instances": [name], **given}, key)

    if any(field.is_required() for field in model.model_fields.values()):
        ask.__annotations__["body"] = model
    else:
        ask.__annotations__["body"] = model | None
        ask.__defaults__ = (None, None)
    return ask


def _add(verb: Verb, model: type[ChangeSpec]) -> None:
    ask = _plain(verb) if model is NothingMore else _with_body(verb, model)
    word = verb.replace("-", "_")
    router.add_api_route(
        f"/{{name}}/{verb}", ask, methods=["POST"], status_code=202, response_model=ledger_models.Accepted,
        name=word if "_" in word else f"{word}_instance", description=f"Ask for an instance to {SAID[verb]}.",
    )  # fmt: skip


for _verb, _model in PARAMETERS.items():
    if _verb is not Verb.DELETE:  # DELETE /v1/instances/{name}
        _add(_verb, _model)


@router.post("/{name}/hold", response_model=models.Changed)
async def hold_instance(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """Do not place a pending instance before it is released."""
    return JSONResponse({"changed": await ctx.store.write(lambda c: holding.hold(c, caller, name))})


@router.post("/{name}/release", response_model=models.Changed)
async def release_instance(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """Let an instance that is on hold be placed."""
    changed = await ctx.store.write(lambda c: holding.release(c, caller, name))
    ctx.wake()
    return JSONResponse({"changed": changed})


@router.post("/{name}/mark", response_model=models.Changed)
async def mark_instance(ctx: Ctx, caller: Caller, name: str, body: Mark) -> JSONResponse:
    """Write the state in which an administrator has found an instance that is held."""
    state = InstanceState(body.state)
    changed = await ctx.store.write(lambda c: recovery.mark(c, caller, name, state, body.reason))
    return JSONResponse({"changed": changed})
