"""Images: import into the front-end's store, stage to hosts, remove."""

from __future__ import annotations

from typing import Literal

from prefect import flow

from core.states import Verb
from tasks.forms import image_body
from tasks.images import import_images, remove_images, stage_to_hosts
from tasks.ledger import enter
from tasks.settle import settle


@flow(name="stage", flow_run_name="stage")
async def stage(
    name: str = "",
    source: str = "",
    kind: Literal["vm", "container"] = "vm",
    sha256: str = "",
    operations: list[str] = [],  # noqa: B006 - a form's default
) -> None:
    """Import an image and verify it.

    Args:
        name: the image's name in this cloud
        source: path on the front-end, file:// or http(s):// URL
        kind: what runs from it
        sha256: expected checksum of the source
        operations: leave empty; filled by rackflow's dispatcher
    """
    batch = await enter(Verb.IMPORT, image_body(name, source, kind, sha256), operations)
    try:
        await import_images(batch)
        await stage_to_hosts(batch)
        await remove_images(batch)
    finally:
        await settle(batch)
