"""docs/lifecycle.md and its picture out of the lifecycle table: `python -m control.lifecycle_docs docs`.

Writes lifecycle.md and lifecycle.dot into the folder, and lifecycle.svg where graphviz is installed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from control import lifecycle_words as words
from control.lifecycle import LASTING, PASSING, VERBS, WORDS, NoReturn, StepRule, VerbRule
from control.lifecycle_picture import dot
from control.opennebula import PAIRS
from core.states import InstanceState as S
from core.states import Verb

INTRO = """\
# The lifecycle of an instance

Made from `control/lifecycle.py` by `python -m control.lifecycle_docs docs`; do not edit.

![states and verbs](lifecycle.svg)

A verb is asked for in a state that may last and leads, through a passing state, to a state that may last. An
operation that is given up is undone: what its steps did is taken back in reverse order, and the instance is as it was.
From its *point of no return* on an operation only goes forward, however often it has to try.
"""
HELD = """\
## Held

An operation that meets what only a person can judge (a host that contradicts the record, a rejected key, an error
beyond the point of no return) stops: the operation is `held`, and so is its instance. Nothing is tried by itself any
more, and nothing is taken away. `rackflow operation show ID` tells the reason, what was seen, which steps are done, and
what to do.
"""
WAYS_OUT = (
    ("`rackflow operation retry ID`", "you mended what is named",
     "it goes on at its first unfinished step, or is undone further"),
    ("`rackflow operation abandon ID`", "it is not worth it",
     "its steps are undone; refused beyond the point of no return: there the last copy of something would go"),
    ("`rackflow instance mark NAME STATE`", "you looked at the host, and put it right by hand",
     "the record says `running`, `off` or `failed`; the operation is over"),
    ("`rackflow instance start`, `shutdown`, `poweroff`, `delete`", "you know what you want",
     "they look first, and bring it there; the held operation is over"),
)  # fmt: skip


def text() -> str:
    """Return docs/lifecycle.md."""
    return "\n".join([INTRO, _states(), _verbs(), _steps_of_verbs(), _meaning(), _held(), _steps()])


def _table(head: str, rows: Iterable[tuple[str, ...]]) -> str:
    titles = [title.strip() for title in head.split("|")]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def _code(names: Iterable[str]) -> str:
    return " ".join(f"`{name}`" for name in names)


def _states() -> str:
    def rows(wanted: frozenset[S]) -> Iterator[tuple[str, ...]]:
        for state in (one for one in S if one in wanted):
            pair = PAIRS[state]
            numbers = f"{pair.state} {pair.state.name}, {pair.lcm_state} {pair.lcm_state.name}"
            yield f"`{state}`", words.STATES[state], numbers, f"`{pair.short}`"

    head = "{} | means | in OpenNebula: STATE, LCM_STATE | `onevm list`"
    lasting, passing = _table(head.format("may last"), rows(LASTING)), _table(head.format("passing"), rows(PASSING))
    return f"## States\n\n{lasting}\n{passing}"


def _verbs() -> str:
    rows = ((f"`{verb}`", words.VERBS[verb], _from(rule), _passing(rule), _to(verb, rule), f"`{rule.needs}`" * bool(
        rule.needs)) for verb, rule in VERBS.items())  # fmt: skip
    note = (
        "Where nothing stands under *then* it is as before. *Needs* names what the host's driver must be able to do "
        "(`rackflow host show`).\n"
    )
    return "## Verbs\n\n" + _table("verb | to | in | on the way | then | needs", rows) + "\n" + note


def _from(rule: VerbRule) -> str:
    if rule.allowed_from == frozenset(S) - {S.DELETED}:
        return "any but `deleted`"
    return _code(state for state in S if state in rule.allowed_from)


def _passing(rule: VerbRule) -> str:
    return _code(dict.fromkeys(s for s in (rule.during, *(step.during for step in rule.steps)) if s))


def _to(verb: Verb, rule: VerbRule) -> str:
    done = f"`{rule.done}`" if rule.done else ""
    can_fail = rule.failed and rule.failed is not rule.done and rule.steps[0].no_return is None
    return f"{done}; given up: `{rule.failed}`" if can_fail else done


def _steps_of_verbs() -> str:
    rows = ((f"`{verb}`", ", ".join(map(_step, rule.steps)), _no_return(rule)) for verb, rule in VERBS.items())
    return (
        "## Steps\n\nIn brackets what undoes a step.\n\n" + _table("verb | steps | no way back", rows)
        + "\nA step that was cut off counts as done if the world says so: it is asked before anything is undone.\n"
        "A container that goes back to a backup has no way back as soon as `restore-volumes` took the old one away.\n"
    )  # fmt: skip


def _step(step: StepRule) -> str:
    return f"`{step.name}`" + (f" (`{step.compensation}`)" if step.compensation else "")


def _no_return(rule: VerbRule) -> str:
    first = next((step for step in rule.steps if step.no_return), None)
    if first is None:
        return ""
    return f"as soon as `{first.name}` begins" if first.no_return is NoReturn.BEGUN else f"once `{first.name}` is done"


def _meaning() -> str:
    states = [state for state in S if any(state in by_state for by_state in WORDS.values())]
    rows = ((f"`{state}`", *(f"`{WORDS[word][state]}`" if state in WORDS[word] else "" for word in WORDS))
            for state in states)  # fmt: skip
    head = " | ".join(["state", *(f"`{word}`" for word in WORDS)])
    intro = "People say one word and mean, by the state that the instance is in, one of these verbs.\n\n"
    return "## What `start` and `resume` mean\n\n" + intro + _table(head, rows)


def _held() -> str:
    return f"{HELD}\n{_table('you | when | what happens', WAYS_OUT)}"


def _steps() -> str:
    rows = ((f"`{name}`", meaning) for name, meaning in words.STEPS.items())
    return "## What the steps do\n\nThose that undo others included.\n\n" + _table("step | does", rows)


def main(folder: Path) -> None:
    """Write the page, and the picture where graphviz is installed."""
    (folder / "lifecycle.md").write_text(text())
    (folder / "lifecycle.dot").write_text(dot())
    if program := shutil.which("dot"):
        argv = [program, "-Tsvg", "-o", str(folder / "lifecycle.svg"), str(folder / "lifecycle.dot")]
        subprocess.run(argv, check=True)
    else:
        sys.exit("graphviz is not installed: lifecycle.svg is as it was")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
