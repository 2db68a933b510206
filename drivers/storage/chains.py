"""Put a chain of qcow2 files (a whole one, and what changed since) together into one, on the front-end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from core.errors import HostFault, Invalid
from drivers.storage.dir_restore import on_top
from drivers.storage.recognise import run_tool


async def merge(files: Sequence[Path], target: Path) -> None:
    """Write one qcow2 that stands alone. Raise Invalid (damaged), HostFault (full)."""
    argv = ["qemu-img", "convert", "-O", "qcow2", on_top([str(file) for file in files]), str(target)]
    code, _, err = await run_tool(argv)
    if code == 0:
        return
    await asyncio.to_thread(target.unlink, missing_ok=True)
    if "No space left" in err:
        raise HostFault(f"{target.parent} is full", "", {"seen": err}, "make room there")
    raise Invalid(
        f"{files[-1].name} cannot be put together: {err.strip()}", "", {"files": [str(file) for file in files]},
        "make a new backup; restore from an older one",
    )  # fmt: skip
