"""The lifecycle table as a picture for graphviz: states that may last are boxes, verbs are arrows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from control.lifecycle import LASTING, ON_HOST, PARKED, VERBS, VerbRule
from core.states import InstanceState as S
from core.states import Verb

_HEAD = """\
// Made from control/lifecycle.py by `python -m control.lifecycle_docs docs`; do not edit.
digraph lifecycle {
  graph [rankdir=TB, compound=true, fontname="Helvetica", fontsize=12, nodesep=0.8, ranksep=1.0, pad=0.2];
  node [shape=box, style="rounded,filled", fillcolor=white, fontname="Helvetica-Bold", fontsize=14, margin="0.2,0.1"];
  edge [fontname="Helvetica", fontsize=11, color="#555555", arrowsize=0.8];
"""
_GROUPS: tuple[tuple[str, str, str, tuple[S, ...]], ...] = (
    ("waiting", "waits for a host", "#fff7e0", (S.PENDING, S.ON_HOLD)),
    ("host", "on a host", "#e6f4e6", tuple(s for s in S if s in ON_HOST)),
    ("parked", "at the front-end, on no host", "#e4eefb", tuple(s for s in S if s in PARKED)),
)
_COLOURS = {S.RUNNING: "#b9e3b9", S.HELD: "#ffd9b3", S.FAILED: "#f6c6c6", S.DELETED: "#dddddd"}
# What is no verb of the table: people say it, and the record changes at once.
BY_HAND: dict[tuple[S, S], str] = {
    (S.PENDING, S.ON_HOLD): "hold",
    (S.ON_HOLD, S.PENDING): "release",
    (S.HELD, S.RUNNING): "mark",
    (S.HELD, S.OFF): "mark",
    (S.HELD, S.FAILED): "mark",
}


def dot() -> str:
    """Return the picture as text for `dot`."""
    return _HEAD + "".join(f"  {line}\n" for line in [*_nodes(), *_notes(), *_edges()]) + "}\n"


def stays(verb: Verb) -> bool:
    """Say whether a verb leaves an instance in the state it was in: it is told in a note, not drawn."""
    rule = VERBS[verb]
    return rule.done is None or rule.allowed_from == {rule.done}


def arrows() -> dict[tuple[S, S], list[Verb]]:
    """Return the verbs that are drawn, by the state they leave and the one they end well in.

    Not drawn: delete (possible everywhere), and what asks for a state that is there already.
    """
    found: dict[tuple[S, S], list[Verb]] = defaultdict(list)
    for verb, rule in VERBS.items():
        if verb is Verb.DELETE or stays(verb):
            continue
        for state in (s for s in S if s in rule.allowed_from & LASTING):
            if rule.done and rule.done is not state:
                found[state, rule.done].append(verb)
    return dict(found)


def _passing(rule: VerbRule) -> str:
    return ", ".join(dict.fromkeys(s for s in (rule.during, *(step.during for step in rule.steps)) if s))


def _node(state: S) -> str:
    colour = f' [fillcolor="{_COLOURS[state]}"]' if state in _COLOURS else ""
    return f'"{state}"{colour};'


def _nodes() -> Iterator[str]:
    grouped: set[S] = set()
    for name, title, colour, states in _GROUPS:
        yield f'subgraph cluster_{name} {{ label="{title}"; style="rounded,filled"; color="{colour}";'
        yield from (f"  {_node(state)}" for state in states)
        if name == "host":
            yield f"  {_note('stays', _staying())}"
            yield f'  {{ rank=same; "{S.OFF}"; "stays:" }}'
        yield "}"
        grouped |= set(states)
    yield from (_node(state) for state in S if state in LASTING - grouped)


def _staying() -> Iterator[str]:
    by_passing: dict[str, list[str]] = defaultdict(list)
    for verb in (verb for verb in VERBS if stays(verb)):
        by_passing[_passing(VERBS[verb])].append(verb)
    yield "<b>Stays as it was after</b>"
    for passing, verbs in by_passing.items():
        yield ", ".join(verbs) + (f"  <i>{passing}</i>" if passing else "")


def _notes() -> Iterator[str]:
    yield _note("delete", [f"<b>delete</b>  <i>{VERBS[Verb.DELETE].during}</i>", "from every state"])
    yield _note("held", ["An operation met what only a person can judge:", "retry it, abandon it, or:"])


def _note(name: str, lines: Iterable[str]) -> str:
    text = "".join(f'{line}<br align="left"/>' for line in lines)
    style = 'shape=note, style=filled, fillcolor="#ffffe8", fontname="Helvetica", fontsize=11'
    return f'"{name}:" [{style}, label=<{text}>];'


def _edges() -> Iterator[str]:
    """Yield the arrows; a verb that leaves its host from several states has one arrow for all of them."""
    for (one, other), verbs in arrows().items():
        shared = [verb for verb in verbs if len(VERBS[verb].allowed_from & ON_HOST) > 1 and other not in ON_HOST]
        word = BY_HAND.get((one, other), "")
        if own := _label([verb for verb in verbs if verb not in shared], word):
            yield f'"{one}" -> "{other}" [label=<{own}>];'
        for verb in shared:
            states = [state for state in S if state in VERBS[verb].allowed_from]
            if one is states[-1]:
                where = "" if set(states) >= ON_HOST else f"<br/>({', '.join(states)})"
                yield f'"{one}" -> "{other}" [ltail=cluster_host, label=<{_label([verb])}{where}>];'
    for (one, other), word in BY_HAND.items():
        if (one, other) not in arrows():
            yield f'"{one}" -> "{other}" [label=<{_label([], word)}>];'
    failed = VERBS[Verb.DEPLOY].failed
    yield f'"{S.PENDING}" -> "{failed}" [label="cannot be made: undone", style=dashed];'
    yield f'"{S.RUNNING}" -> "{S.HELD}" [ltail=cluster_host, label="any verb", style=dashed];'
    yield f'"delete:" -> "{S.DELETED}" [style=dashed];'
    yield f'"held:" -> "{S.HELD}" [style=dotted, arrowhead=none];'


def _label(verbs: Iterable[Verb], word: str = "") -> str:
    """Return verbs with the states on their way, those that share one in one line."""
    by_passing: dict[str, list[str]] = defaultdict(list)
    for verb in verbs:
        by_passing[_passing(VERBS[verb])].append(f"<b>{verb}</b>")
    lines = [f"{', '.join(names)}<br/><i>{passing}</i>" for passing, names in by_passing.items()]
    return "<br/>".join([*lines, *([f"<b>{word}</b>"] if word else [])])
