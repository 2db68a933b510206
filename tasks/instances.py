"""Stages of a deployment on one host, and of a delete."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task

from tasks.lifecycle import STAGE, stage


@task(name="image", task_run_name="image on {host}", **STAGE)
async def stage_images(host: str, ids: Sequence[str]) -> list[str]:
    """Bring the images of a batch of instances to their host; return the operations that may go on."""
    return await stage(host, ids, ("image",))


@task(name="create", task_run_name="create on {host}", **STAGE)
async def create(host: str, ids: Sequence[str]) -> list[str]:
    """Make the disks of a batch of instances, then define them."""
    return await stage(host, ids, ("volumes", "define"))


@task(name="start", task_run_name="start on {host}", **STAGE)
async def start_created(host: str, ids: Sequence[str]) -> list[str]:
    """Start the instances of a batch that were just created."""
    return await stage(host, ids, ("start",))
