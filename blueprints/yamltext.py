"""YAML text to plain data that still knows on which line each part stood."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

Loc: TypeAlias = tuple[str | int, ...]
NOT_YAML = "this is not YAML: "
ENDLESS = "a part contains itself"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: line (1-based; None when the data came from no text), field, plain words."""

    line: int | None
    field: str
    message: str
    file: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: file, line, field, message."""
        return {"file": self.file or None, "line": self.line, "field": self.field, "message": self.message}

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part)
        return ": ".join(part for part in (place, self.field, self.message) if part)


@dataclass
class Text:
    """What a text said: data, the line of every part, and what was wrong with the text itself."""

    data: Any = None
    lines: dict[Loc, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, loc: Sequence[str | int]) -> int | None:
        """Return the line of that part, or of the nearest part around it."""
        found = next((n for n in range(len(loc), -1, -1) if tuple(loc[:n]) in self.lines), None)
        return None if found is None else self.lines[tuple(loc[:found])]


def read(text: str) -> Text:
    """Parse one YAML document. Problems of syntax and keys that stand twice come back in `problems`."""
    result = Text()
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None:
            result.problems.extend(_walk(node, (), result.lines, frozenset()))
            result.data = None if _endless(result.problems) else loader.construct_document(node)
    except RecursionError:
        result.problems.append(Problem(1, "", NOT_YAML + "it is nested too deeply"))
    except (yaml.YAMLError, ValueError, TypeError) as error:  # ValueError: e.g. a date that does not exist
        result.problems.append(_syntax(error))
    return result


def dotted(loc: Loc) -> str:
    """Return e.g. "instances[2].image"."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")


def _syntax(error: Exception) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    words = [getattr(error, name, None) for name in ("context", "problem")]
    said = ", ".join(word for word in words if word) or str(error).split("\n")[0]
    line = mark.line + 1 if mark is not None else 1
    column = f" (column {mark.column + 1})" if mark is not None else ""
    return Problem(line, "", NOT_YAML + said + column)


def _endless(problems: list[Problem]) -> bool:
    return any(problem.message == ENDLESS for problem in problems)


def _walk(node: yaml.Node, loc: Loc, lines: dict[Loc, int], above: frozenset[int]) -> Iterator[Problem]:
    lines.setdefault(loc, node.start_mark.line + 1)
    if id(node) in above:  # an alias to a node around it
        yield Problem(node.start_mark.line + 1, "", ENDLESS)
        return
    inside = above | {id(node)}
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _walk(item, (*loc, index), lines, inside)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen and key.tag != "tag:yaml.org,2002:merge":
                yield Problem(line, dotted((*loc, name)), f"stands here twice (first on line {seen[name]})")
            seen.setdefault(name, line)
            lines[(*loc, name)] = line
            yield from _walk(value, (*loc, name), lines, inside)
