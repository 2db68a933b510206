"""Look after backups."""

from __future__ import annotations

from typing import Literal

from prefect import flow

from core.states import Verb
from tasks.backups import drop_backups, test_backups
from tasks.forms import names
from tasks.ledger import enter
from tasks.settle import settle


@flow(name="backup", flow_run_name="backup")
async def backup(
    what: Literal["test-backup", "drop-backup"] = "test-backup",
    backups: str = "",
    operations: list[str] = [],  # noqa: B006 - a form's default
) -> None:
    """Test backups, by reading them and putting their disks together; or delete them.

    Args:
        what: test or delete
        backups: ids, separated by commas
        operations: leave empty; filled by rackflow's dispatcher
    """
    batch = await enter(Verb(what), {"backups": names(backups)}, operations)
    try:
        await test_backups(batch)
        await drop_backups(batch)
    finally:
        await settle(batch)
