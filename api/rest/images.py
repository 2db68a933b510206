"""/v1/images"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from api import ledger_models, models
from api.accept import Key, accept
from api.auth import Caller
from api.bodies import Images, OnHosts, as_list
from api.context import PAGE, After, Ctx, Limit, Name, State, page
from control import images
from core.states import Verb

router = APIRouter(prefix="/images", tags=["images"])


@router.get("", response_model=list[models.Image])
async def list_images(
    request: Request, ctx: Ctx, caller: Caller, name: Name = None, state: State = None, limit: Limit = PAGE,
    after: After = None,
) -> JSONResponse:  # fmt: skip
    """List images with their copies on hosts, oldest first."""
    rows = await ctx.store.read(
        lambda c: images.list_(c, caller, name=name, state=state, limit=limit, after=after)
    )
    return page(request, rows, limit)


@router.post("", status_code=202, response_model=ledger_models.Accepted)
async def import_images(ctx: Ctx, caller: Caller, body: Images, key: Key = None) -> JSONResponse:
    """Ask for images to be brought into the front-end's store, from its own files or from URLs."""
    return await accept(ctx, caller, Verb.IMPORT, {"images": as_list(body)}, key)


@router.get("/{name}", response_model=models.ImageShown)
async def show_image(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """Show an image."""
    return JSONResponse(await ctx.store.read(lambda c: images.show(c, caller, name)))


@router.post("/{name}/stage", status_code=202, response_model=ledger_models.Accepted)
async def stage_image(
    ctx: Ctx, caller: Caller, name: str, body: OnHosts | None = None, key: Key = None
) -> JSONResponse:
    """Ask for an image to be copied to hosts before it is needed there."""
    wanted = body.hosts if body else []
    return await accept(ctx, caller, Verb.STAGE, {"image": name, "hosts": wanted}, key)


@router.delete("/{name}", status_code=202, response_model=ledger_models.Accepted)
async def remove_image(ctx: Ctx, caller: Caller, name: str, key: Key = None) -> JSONResponse:
    """Ask for an image to be taken away from the store and from every host."""
    return await accept(ctx, caller, Verb.REMOVE, {"images": [name]}, key)
