"""Each flag of Capabilities with the protocol that it stands for, or with the flag that it adds something to."""

from __future__ import annotations

from drivers.hypervisor import powers

PROTOCOLS: dict[str, type] = {
    "exec": powers.Executes, "console_log": powers.ConsoleLogs, "suspend": powers.Suspends, "reboot": powers.Reboots,
    "save": powers.SavesState, "reconfigure": powers.Reconfigures, "snapshot": powers.Snapshots,
    "migrate_live": powers.MigratesLive, "console": powers.Consoles, "display": powers.Displays,
    "ticket": powers.Tickets, "backup": powers.BacksUp, "adopt": powers.Adopts, "carry": powers.Carries,
    "save_image": powers.SavesImages,
}  # fmt: skip
DEGREES = {"resize_live": "reconfigure", "snapshot_live": "snapshot", "backup_incremental": "backup"}
FLAGS = (*PROTOCOLS, *DEGREES)
