"""docs/lifecycle.md and its picture say what the lifecycle table says, and every state has a name in OpenNebula."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from control import lifecycle_docs, lifecycle_picture
from control import lifecycle_words as words
from control.lifecycle import LASTING, ON_HOST, VERBS
from control.opennebula import PAIRS, STATES, LcmState, State
from core.states import InstanceState as S
from core.states import Verb

DOCS = Path(__file__).resolve().parents[2] / "docs"
REMAKE = "make it again: python -m control.lifecycle_docs docs"

# Of OpenNebula 7.0, by number: STATE and LCM_STATE with the short names of `onevm list`. From
# https://docs.opennebula.io/7.0/product/operation_references/configuration_references/vm_states
STATE_NAMES = dict(enumerate((
    "INIT init", "PENDING pend", "HOLD hold", "ACTIVE actv", "STOPPED stop", "SUSPENDED susp", "DONE done",
    "FAILED fail", "POWEROFF poff", "UNDEPLOYED unde", "CLONING clon", "CLONING_FAILURE fail",
)))  # fmt: skip
LCM_NAMES = {
    0: "LCM_INIT init", 1: "PROLOG prol", 2: "BOOT boot", 3: "RUNNING runn", 4: "MIGRATE migr", 5: "SAVE_STOP save",
    6: "SAVE_SUSPEND save", 7: "SAVE_MIGRATE save", 8: "PROLOG_MIGRATE migr", 9: "PROLOG_RESUME prol",
    10: "EPILOG_STOP epil", 11: "EPILOG epil", 12: "SHUTDOWN shut", 15: "CLEANUP_RESUBMIT clea", 16: "UNKNOWN unkn",
    17: "HOTPLUG hotp", 18: "SHUTDOWN_POWEROFF shut", 19: "BOOT_UNKNOWN boot", 20: "BOOT_POWEROFF boot",
    21: "BOOT_SUSPENDED boot", 22: "BOOT_STOPPED boot", 23: "CLEANUP_DELETE clea", 24: "HOTPLUG_SNAPSHOT snap",
    25: "HOTPLUG_NIC hotp", 26: "HOTPLUG_SAVEAS hotp", 27: "HOTPLUG_SAVEAS_POWEROFF hotp",
    28: "HOTPLUG_SAVEAS_SUSPENDED hotp", 29: "SHUTDOWN_UNDEPLOY shut", 30: "EPILOG_UNDEPLOY epil",
    31: "PROLOG_UNDEPLOY prol", 32: "BOOT_UNDEPLOY boot", 36: "BOOT_FAILURE fail", 39: "PROLOG_FAILURE fail",
    62: "DISK_RESIZE drsz", 66: "HOTPLUG_RESIZE hotp", 69: "BACKUP back", 70: "BACKUP_POWEROFF back",
    71: "RESTORE rest",
}  # fmt: skip

_NODE = re.compile(r'^\s*"([^"]+)"(?: \[(?P<more>.*)\])?;$', re.MULTILINE)
_EDGE = re.compile(r'^\s*"([^"]+)" -> "([^"]+)" \[(?P<more>.*)\];$', re.MULTILINE)


# OpenNebula


def test_every_state_has_one_pair_and_no_pair_is_given_twice() -> None:
    assert set(PAIRS) == set(S)
    assert len(STATES) == len(PAIRS)
    assert all(STATES[pair.state, pair.lcm_state] is ours for ours, pair in PAIRS.items())


@pytest.mark.parametrize("ours", S)
def test_a_pair_is_one_that_opennebula_gives(ours: S) -> None:
    pair = PAIRS[ours]
    active = pair.state is State.ACTIVE
    name, number = (pair.lcm_state, int(pair.lcm_state)) if active else (pair.state, int(pair.state))
    assert (LCM_NAMES if active else STATE_NAMES)[number] == f"{name.name} {pair.short}"
    assert STATE_NAMES[pair.state].split()[0] == pair.state.name
    assert (pair.lcm_state is LcmState.LCM_INIT) == (not active)


# the page


def test_the_page_is_made_from_the_table() -> None:
    assert (DOCS / "lifecycle.md").read_text() == lifecycle_docs.text(), REMAKE


def test_there_are_words_for_all_and_for_nothing_else() -> None:
    steps = [step for found in VERBS.values() for step in found.steps]
    assert set(words.STATES) == set(S)
    assert list(words.VERBS) == list(VERBS)
    assert list(words.STEPS) == sorted({step.name for step in steps} | {step.compensation for step in steps} - {""})


# the picture


def drawn(text: str) -> tuple[set[str], list[tuple[str, str, str]]]:
    """Return the nodes of a picture, and its arrows with what stands on them."""
    nodes = {found[1] for found in _NODE.finditer(text)}
    return nodes, [(found[1], found[2], found["more"]) for found in _EDGE.finditer(text)]


def note(text: str, name: str) -> str:
    return next(found["more"] for found in _NODE.finditer(text) if found[1] == name)


def titles(svg: str, kind: str) -> Iterator[str]:
    space = "{http://www.w3.org/2000/svg}"
    for group in ElementTree.fromstring(svg).iter(f"{space}g"):
        if group.get("class") == kind:
            yield group.findtext(f"{space}title") or ""


def shown(svg: str) -> tuple[set[str], list[str]]:
    return set(titles(svg, "node")), sorted(titles(svg, "edge"))


def test_the_picture_is_made_from_the_table() -> None:
    assert (DOCS / "lifecycle.dot").read_text() == lifecycle_picture.dot(), REMAKE


def test_every_state_that_may_last_is_a_box() -> None:
    nodes, arrows = drawn((DOCS / "lifecycle.dot").read_text())
    assert {node for node in nodes if not node.endswith(":")} == LASTING
    assert {end for one, other, _ in arrows for end in (one, other)} <= nodes


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb is not Verb.DELETE])
def test_every_verb_is_an_arrow_from_where_it_may_be_asked_for_or_stands_in_the_note(verb: Verb) -> None:
    text, rule = (DOCS / "lifecycle.dot").read_text(), VERBS[verb]
    _, arrows = drawn(text)
    mine = [(one, other, more) for one, other, more in arrows if f"<b>{verb}</b>" in more]
    changing = [s for s in rule.allowed_from & LASTING if rule.done not in (None, s)]
    if not changing:
        assert re.search(rf"[>\s]{verb}[,<\s]", note(text, "stays:"))
        assert mine == []
        return
    from_each = {one for one, _, _ in mine}
    if any("ltail=cluster_host" in more for _, _, more in mine):
        from_each |= {s for s in ON_HOST if s in rule.allowed_from}
    assert from_each == set(changing)
    assert {other for _, other, _ in mine} == {rule.done}
    passing = {step.during for step in rule.steps} | {rule.during}
    assert all(state in more for _, _, more in mine for state in passing - {None} if state)


def test_delete_is_a_note() -> None:
    text = (DOCS / "lifecycle.dot").read_text()
    assert f"<i>{VERBS[Verb.DELETE].during}</i>" in note(text, "delete:")
    assert ("delete:", "deleted") in {(one, other) for one, other, _ in drawn(text)[1]}


def test_the_drawing_shows_what_the_picture_says() -> None:
    nodes, arrows = drawn((DOCS / "lifecycle.dot").read_text())
    assert shown((DOCS / "lifecycle.svg").read_text()) == (nodes, sorted(f"{a}->{b}" for a, b, _ in arrows)), REMAKE


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
def test_graphviz_draws_the_same() -> None:
    made = subprocess.run(["dot", "-Tsvg", str(DOCS / "lifecycle.dot")], capture_output=True, text=True, check=True)
    assert made.stderr == ""
    assert shown(made.stdout) == shown((DOCS / "lifecycle.svg").read_text())
