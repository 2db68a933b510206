"""What the front-end's own store holds for nobody any more: a worker that was late, or killed, may have left it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

from control import backups, instances
from drivers.storage.vault import Vault
from tasks.runtime import Runtime

Idle = Callable[[Any, Collection[str]], set[str]]  # which of these folders need not be kept, by the record


async def sweep_vaults(rt: Runtime) -> int:
    """Take away parked files of what is not parked, and files of no backup; return how many folders went."""
    paths, parked = rt.settings.paths, partial(instances.not_parked, lock=True)
    return await _sweep(rt, paths.parked_dir, partial(instances.not_parked, lock=False), parked) + await _sweep(
        rt, paths.backups_dir, backups.unknown, backups.unknown
    )


async def _sweep(rt: Runtime, root: Path, look: Idle, idle: Idle) -> int:
    vault = Vault(root)
    await vault.clear_aside()
    found = await vault.folders()
    if not found or not await rt.store.read(lambda c: look(c, found)):
        return 0
    # Decided and put aside under the record's locks: whoever is to park something now finds no old files, and his stay.
    count = await rt.store.write(lambda c: sum(vault.put_aside(one) for one in sorted(idle(c, found))))
    await vault.clear_aside()
    return count
