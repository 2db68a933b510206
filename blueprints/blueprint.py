"""A blueprint: a mapping of plural nouns, each a list of specs with unique names; and its loader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator
from pydantic_core import PydanticCustomError

from blueprints.cluster import ClusterSpec
from blueprints.common import Spec
from blueprints.datastore import DatastoreSpec
from blueprints.host import HostSpec
from blueprints.image import ImageSpec
from blueprints.instance import InstanceSpec
from blueprints.network import NetworkSpec
from blueprints.problems import DUPLICATE, duplicates, from_validation
from blueprints.yamltext import Problem, Text, read
from core.errors import Invalid

MAX_BYTES = 16 * 2**20  # of one blueprint file


class Blueprint(Spec):
    """What a cloud, or a part of it, shall hold."""

    clusters: tuple[ClusterSpec, ...] = ()
    datastores: tuple[DatastoreSpec, ...] = ()
    networks: tuple[NetworkSpec, ...] = ()
    images: tuple[ImageSpec, ...] = ()
    hosts: tuple[HostSpec, ...] = ()
    instances: tuple[InstanceSpec, ...] = ()

    @model_validator(mode="after")
    def _unique_names(self) -> Blueprint:
        for noun in NOUNS:
            items = self.expanded() if noun == "instances" else getattr(self, noun)
            if twice := _twice(item.name for item in items):
                said = {"noun": noun, "names": twice}
                raise PydanticCustomError(DUPLICATE, "{noun}: used twice: {names}", said)
        return self

    def expanded(self) -> list[InstanceSpec]:
        """Return one spec per instance, counts written out."""
        return [one for spec in self.instances for one in spec.expand()]


NOUNS = tuple(Blueprint.model_fields)  # in the order in which they are applied


def _twice(names: Iterable[str]) -> str:
    return ", ".join(sorted(name for name, times in Counter(names).items() if times > 1))


def load(source: str | Path, *, file: str = "") -> Blueprint:
    """Return the blueprint in a file (Path) or a YAML text (str; `file` names it in errors).

    Raise Invalid with all that is wrong in evidence["errors"]: file, line, field, message.
    """
    if isinstance(source, Path):
        return load(read_file(source), file=file or str(source))
    return _checked(read(source), file)


def load_files(files: Sequence[Path]) -> Blueprint:
    """Return several files as one blueprint. Raise Invalid with all that is wrong in all of them."""
    problems: list[Problem] = []
    parts: list[tuple[str, Blueprint]] = []
    for path in files:
        try:
            parts.append((str(path), load(path)))
        except Invalid as error:
            problems.extend(_problem(entry) for entry in error.evidence["errors"])
    problems.extend(_across(parts))
    if problems:
        raise invalid(problems)
    return Blueprint(**{noun: tuple(i for _, part in parts for i in getattr(part, noun)) for noun in NOUNS})


def parse(data: Any) -> Blueprint:
    """Return the blueprint in plain data (JSON from the API). Raise Invalid as `load` does, without lines."""
    return _checked(Text(data=data), "")


def read_file(path: Path) -> str:
    """Return a file's text. Raise Invalid (it cannot be read, is too large, is no text)."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise invalid([Problem(None, "", f"is larger than {MAX_BYTES // 2**20} MiB", str(path))])
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _unread(path, error.strerror or "") from error
    except UnicodeDecodeError as error:
        raise _unread(path, "it is not UTF-8 text") from error


def _unread(path: Path, why: str) -> Invalid:
    wrong = Problem(None, "", f"cannot be read: {why}", str(path))
    return Invalid(str(wrong), "file", {"errors": [wrong.to_dict()]}, "name another file")


def _checked(text: Text, file: str) -> Blueprint:
    problems = list(text.problems)
    result = Blueprint()
    if not problems or text.data is not None:
        try:
            result = Blueprint.model_validate(_mapping(text))
        except ValidationError as error:
            problems.extend(from_validation(error, Blueprint, text))
        problems.extend(duplicates(text, NOUNS))
    if problems:
        raise invalid(replace(problem, file=file) for problem in problems)
    return result


def _mapping(text: Text) -> Any:
    """Let an empty text, and a noun with nothing below it, stand for nothing asked."""
    if text.data is None:
        return {}
    if not isinstance(text.data, Mapping):
        return text.data
    return {str(noun): () if items is None and noun in NOUNS else items for noun, items in text.data.items()}


def _across(parts: Sequence[tuple[str, Blueprint]]) -> list[Problem]:
    """Find names that stand in two files."""
    found: list[Problem] = []
    for noun in NOUNS:
        owner: dict[str, str] = {}
        for file, part in parts:
            items = part.expanded() if noun == "instances" else getattr(part, noun)
            for name in (item.name for item in items):
                if owner.setdefault(name, file) != file:
                    said = f"the name {name!r} stands in {owner[name]} as well"
                    found.append(Problem(None, noun, said, file))
    return found


def _problem(entry: Mapping[str, Any]) -> Problem:
    return Problem(entry["line"], entry["field"], entry["message"], entry["file"] or "")


def invalid(problems: Iterable[Problem], what: str = "blueprint", noun: str = "blueprint") -> Invalid:
    """Return the error for what is wrong, in the order of the lines. what: was read; noun: whose schema helps."""
    ordered = sorted(problems, key=lambda p: (p.file, p.line or 0))
    more = f" (and {len(ordered) - 1} more)" if len(ordered) > 1 else ""
    return Invalid(
        f"the {what} is not valid: {ordered[0]}{more}",
        subject=what,
        evidence={"errors": [problem.to_dict() for problem in ordered]},
        fix=f"correct it and try again; `rackflow schema {noun}` shows all fields",
    )
