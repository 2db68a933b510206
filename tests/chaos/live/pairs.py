"""One verb, one fault, in the middle of one step of it; then the look at what has become of it."""

from __future__ import annotations

import random
import time
import urllib.error
from dataclasses import dataclass

from bench.cloud import Cloud
from control.lifecycle import VERBS
from core.states import UNFINISHED, InstanceKind, InstanceState, OperationState, StepState, Verb
from drivers.hypervisor.lxd_sweep import LEFT_FOR_S
from tests.chaos.live.faults import LiveFault, strike
from tests.chaos.live.invariants import left, wrong
from tests.chaos.live.verbs import SPOILED, ask, kinds, prepare, verbs
from tests.chaos.matrix import Outcome
from tests.labs import Lab
from tests.live.guests import WORD, Guest, awake, ended, operation, reconcile, until

NAME = "chaos"
SETTLED_S = 180.0  # from the fault to the end of the operation, hosts that boot included
MADE = {Verb.SAVE_IMAGE: "chaos-golden"}


@dataclass(frozen=True)
class Pair:
    """A verb on a kind of instance, the fault, and the step in which it happens."""

    verb: Verb
    kind: InstanceKind
    fault: LiveFault
    step: str

    @property
    def name(self) -> str:
        return f"{self.verb} {self.kind} {self.step} {self.fault.name}"


def all_pairs(seed: int) -> list[Pair]:
    """Return each pair of verb and fault once, in the seed's order; kind and step are the seed's choice."""
    chance = random.Random(seed)
    found = [
        Pair(verb, chance.choice(list(kinds(verb))), fault, chance.choice(VERBS[verb].steps).name)
        for verb in verbs() for fault in LiveFault
    ]  # fmt: skip
    chance.shuffle(found)
    return found


def run(pair: Pair, cloud: Cloud, lab: Lab) -> Outcome:
    """Run one pair to its end, and take away what it made."""
    outcome = Outcome(pair.name, pair.verb, pair.fault)
    before = left(cloud)
    guest = Guest(cloud, NAME)
    try:
        _run(pair, guest, lab, outcome, before)
    except (AssertionError, RuntimeError, urllib.error.HTTPError) as error:
        outcome.wrong["broke"] = [f"{type(error).__name__}: {error}"[:500]]
    finally:
        remains = _clean(pair, cloud, lab, before)
        if remains:
            outcome.wrong.setdefault("leaked", []).extend(f"after a delete: {one}" for one in remains)
    return outcome


def _run(pair: Pair, guest: Guest, lab: Lab, outcome: Outcome, before: set[str]) -> None:
    cloud = guest.cloud
    if pair.verb is not Verb.DEPLOY:
        prepare(guest, pair.kind, pair.verb)
    state = InstanceState.PENDING if pair.verb is Verb.DEPLOY else InstanceState(guest.show()["state"])
    op_id = ask(guest, pair.kind, pair.verb)
    host = _in_step(cloud, op_id, pair.step)
    heal = strike(pair.fault, cloud, lab, host or _any(cloud, pair.kind))
    heal()
    op = ended(cloud, op_id, SETTLED_S)
    outcome.ended = op["state"]
    outcome.wrong = _after_two_looks(cloud, lab, before)
    if pair.verb is not Verb.DELETE or op["state"] != OperationState.DONE:
        outcome.wrong |= {kind: found for kind, found in _instance(pair, state, op["state"], cloud).items() if found}


def _after_two_looks(cloud: Cloud, lab: Lab, before: set[str]) -> dict[str, list[str]]:
    """Look, and if something is left then, once more after the time for which a leftover must have been seen."""
    reconcile(cloud)
    if wrong(cloud, lab, before):
        time.sleep(LEFT_FOR_S)
    reconcile(cloud)
    return wrong(cloud, lab, before)


def _in_step(cloud: Cloud, op_id: str, name: str) -> str:
    """Wait until a step has begun, or all has ended; return the host of the last one."""
    while True:
        op = operation(cloud, op_id)
        begun = [s for s in op["steps"] if s["state"] != StepState.PENDING]
        if any(s["name"] == name for s in begun) or op["state"] not in UNFINISHED:
            return next((str(s["host"]) for s in reversed(begun) if s["host"]), "")
        time.sleep(0.01)


def _any(cloud: Cloud, kind: InstanceKind) -> str:
    driver = "kvm" if kind is InstanceKind.VM else "lxd"
    return next(str(host["name"]) for host in cloud.call("GET", "/v1/hosts") if host["driver"] == driver)


def _instance(pair: Pair, before: InstanceState, ended_as: str, cloud: Cloud) -> dict[str, list[str]]:
    """Return what is wrong with the instance: its state, and what its guest had written."""
    (shown,) = [row for row in cloud.call("GET", "/v1/instances?limit=100") if row["name"].startswith(NAME)]
    rule, state = VERBS[pair.verb], InstanceState(shown["state"])
    allowed = {rule.done or before}
    if ended_as != OperationState.DONE:
        allowed |= {before, rule.failed or before}
    if pair.fault is LiveFault.POWER:  # after the end of the verb, maybe: then it was started again, or could not be
        allowed |= {InstanceState.RUNNING, InstanceState.OFF}
    found: dict[str, list[str]] = {}
    if state not in allowed:
        found["state"] = [f"{pair.verb} is {ended_as} and it is {state}: {shown['reason']}"]
    if pair.verb is Verb.DEPLOY:
        return found
    guest = Guest(cloud, shown["name"])
    if state is not InstanceState.RUNNING:
        guest.do("start")
    awake(guest)
    word = guest.sh("cat /root/word 2>/dev/null || true")
    reverts = pair.verb in (Verb.REVERT, Verb.REVERT_BACKUP)
    wanted = SPOILED if pair.verb is Verb.DROP_SNAPSHOT or (reverts and ended_as != OperationState.DONE) else WORD
    return {**found, "lost": [] if word == wanted else [f"the guest has {word!r}, not {wanted!r}"]}


def _clean(pair: Pair, cloud: Cloud, lab: Lab, before: set[str]) -> list[str]:
    """Delete all that was made; return what is left of it then."""
    for row in cloud.call("GET", "/v1/instances?limit=100"):
        if row["name"].startswith(NAME):
            for backup in reversed(cloud.call("GET", f"/v1/instances/{row['name']}/backups")):
                cloud.run("backup", "delete", row["name"], backup["name"], "--yes")
            cloud.run("instance", "delete", row["name"], "--yes")
    until(lambda: all(host["state"] == "ready" for host in cloud.call("GET", "/v1/hosts")), 120)
    reconcile(cloud)  # after it nothing is under way that could still make an image
    stays = drop_image(cloud, MADE[pair.verb], SETTLED_S) if pair.verb in MADE else []
    return stays + [f"{kind}: {one}" for kind, found in wrong(cloud, lab, before).items() for one in found]


def drop_image(cloud: Cloud, name: str, within_s: float) -> list[str]:
    """Delete an image, again while it is busy, until its name is free; return why it is not."""
    end, why = time.monotonic() + within_s, ""
    while cloud.call("GET", f"/v1/images?name={name}"):
        if (left_s := end - time.monotonic()) < 0:
            return [f"image {name} stays: {why}"]
        try:
            answer = cloud.call("DELETE", f"/v1/images/{name}")
            why = str(ended(cloud, answer["operations"][0]["id"], left_s)["error"])
        except urllib.error.HTTPError as error:
            why = error.read().decode(errors="replace")
        except RuntimeError as error:  # it had no end
            why = str(error)
        time.sleep(0.3)
    return []

