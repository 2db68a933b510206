"""How OpenNebula would call each state of an instance: one pair (STATE, LCM_STATE) for each, and no pair twice.

Numbers, names and the short names of `onevm list` as in OpenNebula 6.8 to 7.0:
https://docs.opennebula.io/7.0/product/operation_references/configuration_references/vm_states
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from core.states import InstanceState as S


class State(IntEnum):
    """STATE, those that we need."""

    PENDING = 1
    HOLD = 2
    ACTIVE = 3
    STOPPED = 4
    SUSPENDED = 5
    DONE = 6
    POWEROFF = 8
    UNDEPLOYED = 9


class LcmState(IntEnum):
    """LCM_STATE, those that we need. Anything but LCM_INIT goes with ACTIVE only."""

    LCM_INIT = 0
    PROLOG = 1
    BOOT = 2
    RUNNING = 3
    MIGRATE = 4
    SAVE_STOP = 5
    SAVE_SUSPEND = 6
    PROLOG_RESUME = 9
    UNKNOWN = 16
    HOTPLUG = 17
    SHUTDOWN_POWEROFF = 18
    BOOT_SUSPENDED = 21
    CLEANUP_DELETE = 23
    HOTPLUG_SNAPSHOT = 24
    HOTPLUG_NIC = 25
    HOTPLUG_SAVEAS = 26
    SHUTDOWN_UNDEPLOY = 29
    PROLOG_FAILURE = 39
    HOTPLUG_RESIZE = 66
    BACKUP = 69
    RESTORE = 71


@dataclass(frozen=True)
class Pair:
    """STATE and LCM_STATE, and what `onevm list` shows for them."""

    state: State
    lcm_state: LcmState
    short: str


def _lasting(state: State, short: str) -> Pair:
    return Pair(state, LcmState.LCM_INIT, short)


def _active(lcm_state: LcmState, short: str) -> Pair:
    return Pair(State.ACTIVE, lcm_state, short)


PAIRS: dict[S, Pair] = {
    S.PENDING: _lasting(State.PENDING, "pend"),
    S.ON_HOLD: _lasting(State.HOLD, "hold"),
    S.RUNNING: _active(LcmState.RUNNING, "runn"),
    S.SUSPENDED: _lasting(State.SUSPENDED, "susp"),
    S.OFF: _lasting(State.POWEROFF, "poff"),
    S.STOPPED: _lasting(State.STOPPED, "stop"),
    S.UNDEPLOYED: _lasting(State.UNDEPLOYED, "unde"),
    S.HELD: _active(LcmState.UNKNOWN, "unkn"),  # may be started, cut off and deleted there too
    S.FAILED: _active(LcmState.PROLOG_FAILURE, "fail"),  # FAILED (7) is not given any more since version 5
    S.DELETED: _lasting(State.DONE, "done"),
    S.STAGING: _active(LcmState.PROLOG, "prol"),
    S.STARTING: _active(LcmState.BOOT, "boot"),
    S.SHUTTING_DOWN: _active(LcmState.SHUTDOWN_POWEROFF, "shut"),
    S.SUSPENDING: _active(LcmState.SAVE_SUSPEND, "save"),
    S.RESUMING: _active(LcmState.BOOT_SUSPENDED, "boot"),
    S.STOPPING: _active(LcmState.SAVE_STOP, "save"),
    S.RESTORING: _active(LcmState.PROLOG_RESUME, "prol"),
    S.UNDEPLOYING: _active(LcmState.SHUTDOWN_UNDEPLOY, "shut"),
    S.MIGRATING: _active(LcmState.MIGRATE, "migr"),
    S.RESIZING: _active(LcmState.HOTPLUG_RESIZE, "hotp"),
    S.CHANGING_DISKS: _active(LcmState.HOTPLUG, "hotp"),
    S.CHANGING_NICS: _active(LcmState.HOTPLUG_NIC, "hotp"),
    S.SNAPSHOTTING: _active(LcmState.HOTPLUG_SNAPSHOT, "snap"),
    S.SAVING_IMAGE: _active(LcmState.HOTPLUG_SAVEAS, "hotp"),
    S.BACKING_UP: _active(LcmState.BACKUP, "back"),
    S.REVERTING: _active(LcmState.RESTORE, "rest"),
    S.DELETING: _active(LcmState.CLEANUP_DELETE, "clea"),
}
STATES: dict[tuple[int, int], S] = {(pair.state, pair.lcm_state): ours for ours, pair in PAIRS.items()}
