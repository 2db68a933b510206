"""Which function does which step of the lifecycle table, and which undoes it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from control import growing, instances
from core.states import Verb
from tasks import disks, keeping, moves, power
from tasks.ledger import Seen
from tasks.work import Work

Action = Callable[[Work], Awaitable[Seen]]
Probe = Callable[[Work], Awaitable[bool]]
LONG_S = 6 * 3600.0


def _writes(change: Callable[[Any, Work], object]) -> Action:
    """Return an action that only writes to the record."""

    async def act(w: Work) -> Seen:
        return Seen(True, None, lambda c: change(c, w))

    return act


async def _reserve_more(w: Work) -> Seen:
    features = await w.rt.features()
    return Seen(True, None, lambda c: growing.reserve_more(c, w.op, features))


ACTIONS: dict[str, Action] = {
    # the record
    "release": _writes(lambda c, w: instances.release(c, w.op, w.view.id)),
    "free": _writes(lambda c, w: instances.free(c, w.op, w.view.id)),
    "reserve-more": _reserve_more,
    "reserve-less": _writes(lambda c, w: growing.reserve_less(c, w.op)),
    "record": _writes(lambda c, w: growing.record(c, w.op)),
    # power and memory
    "start": power.start,
    "start-again": power.start_again,
    "stop": power.stop,
    "poweroff": power.poweroff,
    "reboot": power.reboot,
    "suspend": power.suspend,
    "resume": power.resume,
    "save": power.save,
    "unsave": power.unsave,
    "restore": power.restore,
    # disks and definition
    "image": disks.image,
    "volumes": disks.volumes,
    "delete-volumes": disks.delete_volumes,
    "define": disks.define,
    "undefine": disks.undefine,
    "apply": disks.apply,
    "apply-before": disks.apply_before,
    "add-volume": disks.add_volume,
    "drop-volume": disks.drop_volume,
    "grow-volume": disks.grow_volume,
    "clear": disks.clear,
    "park": disks.park,
    "unpark": disks.unpark,
    "drop-parked": disks.drop_parked,
    # from host to host
    "reserve": moves.reserve,
    "unreserve": moves.unreserve,
    "target-image": moves.target_image,
    "target-volumes": moves.target_volumes,
    "target-define": moves.target_define,
    "target-undefine": moves.target_undefine,
    "carry": moves.carry,
    "drop-target": moves.drop_target,
    "transfer": moves.transfer,
    "switch": moves.switch,
    "switch-back": moves.switch_back,
    "clear-source": moves.clear_source,
    # what is kept
    "snapshot": keeping.snapshot,
    "revert": keeping.revert,
    "drop-snapshot": keeping.drop_snapshot,
    "copy-disk": keeping.copy_disk,
    "fetch-image": keeping.fetch_image,
    "drop-image": keeping.drop_image,
    "backup": keeping.backup,
    "fetch-backup": keeping.fetch_backup,
    "drop-backup": keeping.drop_backup,
    "drop-scratch": keeping.drop_scratch,
    "prune": keeping.prune,
    "restore-volumes": keeping.restore_volumes,
    "restore-before": keeping.restore_before,
    "drop-before": keeping.drop_before,
}

# A step that was cut off, or seemed to fail, may have been done all the same: whether it was, as seen in the world.
PROBES: dict[str, Probe] = {
    "transfer": moves.is_there,
    "start-again": power.runs_now,
    "restore": power.is_running,
    "start": power.is_running,
}

# Once begun, these cannot be undone for some instances: whether it is one of them.
ONE_WAY: dict[str, Probe] = {"restore-volumes": keeping.keeps_none_before}

# Undone on a host that does not answer, these are owed to it: what is left there is cleared when it answers again.
OWED = frozenset({"poweroff", "undefine", "delete-volumes", "target-undefine", "drop-target"})

# Undone, these give disks back what they were. While those are on a fenced host nothing may start from them elsewhere.
MENDS_DISKS = frozenset({"restore-before"})

# What these take away may as well be taken away when a fenced host is back: its instances run nowhere, and nobody wants
# back what is there.
LEFT_BEHIND: dict[Verb, frozenset[str]] = {
    Verb.DELETE: frozenset({"stop", "undefine", "delete-volumes"}),
    Verb.UNDEPLOY: frozenset({"clear"}),
    Verb.STOP: frozenset({"clear"}),
}

# Steps after which the record knows the instance elsewhere, or otherwise, than the view at hand.
REREAD = frozenset({"reserve", "unreserve", "switch", "switch-back", "reserve-more", "record", "free", "release"})

DEADLINES_S: dict[str, float] = dict.fromkeys(
    ("image", "target-image", "park", "unpark", "carry", "transfer", "save", "unsave", "restore", "copy-disk",
     "fetch-image", "backup", "fetch-backup", "restore-volumes", "volumes", "snapshot", "revert"), LONG_S,
)  # fmt: skip
