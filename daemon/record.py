"""Process: prepares the state of record at every `up`: tables, first rows, the admin's token. Ends when done."""

from __future__ import annotations

import logging
from typing import Any

from control import access
from control.seed import seed
from control.store import Store
from core.settings import Settings
from daemon.files import write_private

log = logging.getLogger("rackflow.record")


def run(settings: Settings) -> None:
    """Migrate, seed, and see that the admin has a token (mode 0600)."""
    store = Store(settings.database_url)
    try:
        store.migrate()
        store.write_now(lambda c: prepare(c, settings))
    finally:
        store.close_now()


def prepare(c: Any, settings: Settings) -> None:
    """Write the first rows, those that are missing."""
    seed(c, settings.drivers.datastore_path)
    token = access.ensure_admin(c)
    if token is None and not settings.paths.token_file.exists():
        log.warning("the admin's token file was gone: a new token was made")
        token = access.new_token(c, access.find(c, "admin"), "made anew by up")
    if token is not None:
        # Before the commit: a token that is in the file but not in the record is made anew next time.
        write_private(settings.paths.token_file, token + "\n")
