"""What pydantic and the rules across specs find wrong, in plain words."""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from blueprints.yamltext import Loc, Problem, Text

_QUOTE = "must be text: put it in quotes"
_WORDS = {  # pydantic's error types, see docs.pydantic.dev/latest/errors/validation_errors
    "missing": "is missing",
    "string_type": _QUOTE,
    "string_too_short": "must not be empty",
    "string_too_long": "is longer than {max_length} characters",
    "string_pattern_mismatch": "does not have the right form ({pattern})",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of names to values",
    "model_type": "must be a mapping of fields",
    "model_attributes_type": "must be a mapping of fields",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "greater_than": "must be more than {gt:.15g}",
    "greater_than_equal": "must be at least {ge:.15g}",
    "less_than": "must be less than {lt:.15g}",
    "less_than_equal": "must be at most {le:.15g}",
    "ip_v4_address": "must be an IPv4 address such as 10.1.0.5",
    "ip_v4_interface": "must be a subnet such as 10.1.0.0/24",
}
_NO_VALUE = {"missing", "dict_type", "model_type", "model_attributes_type", "extra_forbidden"}
_FORMS = {  # what the patterns of the specs ask for
    r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$": "must be lower case letters, digits and hyphens, begin with a letter, "
    "at most 63 characters",
    r"^[0-9a-f]{64}$": "must be a SHA-256 checksum: 64 digits out of 0-9 and a-f",
    r"^SHA256:": "must be SHA256: and a fingerprint, as ssh-keygen -l prints it",
    r"^/[A-Za-z0-9_./-]+$": "must be an absolute path of letters, digits and _ . / -",
    r"^[a-zA-Z0-9_.-]{1,15}$": "must be the name of a bridge: at most 15 letters, digits and _ . -",
    r"^((ironic\+)?https?|ipmi|fake)://": "must be a BMC's address such as https://10.0.0.21 or ipmi://10.0.0.21",
    r"^((ironic\+)?https?|ipmi|fake)://[^@\s]+$": "must be a BMC's address such as https://10.0.0.21 or "
    "ipmi://10.0.0.21, without a user",
    r"^[a-z][a-z0-9-]{0,15}$": "must be the name of a driver: lower case, at most 16 characters",
    r"^[0-9a-f]{4}:([0-9a-f]{4}|\*)$": "must be VENDOR:DEVICE such as 10de:1eb8, or VENDOR:*",
    r"^(gpu|nic|storage|accelerator|[0-9a-f]{4}:[0-9a-f]{4})$": "must be gpu, nic, storage, accelerator or "
    "VENDOR:DEVICE such as 10de:1eb8",
    r"^([0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)?$": "must be CPUs such as 4-15 or 0,2,8-11",
    r"^[ -~]*$": "must be plain ASCII in one line",
    r"^[a-z][a-z0-9_]{0,62}$": "must be a capability such as migrate_live",
    r"^(ssh-ed25519 [A-Za-z0-9+/=]+)?$": "must be a public key: ssh-ed25519 and its base64, without a comment",
    r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$": "must be a part of the day such as 19:00-07:00",
    r"^(kvm|lxd|spare)$": "must be kvm, lxd or spare",
    r"^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$": "must be a MAC address such as 52:54:00:12:34:56",
}
DUPLICATE = "duplicate_name"


def from_validation(error: ValidationError, model: type[BaseModel], text: Text) -> Iterator[Problem]:
    """Say each of pydantic's errors in plain words, with the line it stands on."""
    for detail in error.errors(include_url=False):
        loc = _in_text(detail["loc"], text, model)
        if detail["type"] != DUPLICATE:  # found again, for all nouns at once, by `duplicates`
            yield Problem(text.line(loc), field_name(loc, text.data), message(detail, model))


def duplicates(text: Text, nouns: Sequence[str]) -> Iterator[Problem]:
    """Find names that two things of one noun would bear, those made by `count` among them."""
    for noun in nouns:
        first: dict[str, int] = {}
        items = text.data.get(noun) if isinstance(text.data, Mapping) else None
        for index, item in enumerate(items if isinstance(items, list) else ()):
            for name in _names(item):
                if name in first:
                    line, other = (text.line((noun, at, "name")) for at in (index, first[name]))
                    yield Problem(line, f"{noun}[{index}].name", _twice(name, other))
                    break
                first[name] = index


def _twice(name: str, line: int | None) -> str:
    return f"the name {name!r} is used twice" + ("" if line is None else f" (first on line {line})")


def _names(item: Any) -> list[str]:
    name = item.get("name") if isinstance(item, Mapping) else None
    if not isinstance(name, str):
        return []
    count = item.get("count")
    if isinstance(count, int) and 0 <= count <= 10_000:
        return [f"{name}-{i}" for i in range(1, count + 1)]
    return [name]


def field_name(loc: Loc, data: Any) -> str:
    """Return e.g. "instances[web].disks[0].size"; things that have a name are called by it."""
    said = ""
    for part in loc:
        data = _inside(data, part)
        if isinstance(part, int):
            name = data.get("name") if isinstance(data, Mapping) else None
            said += f"[{name if isinstance(name, str) and name else part}]"
        else:
            said += f".{part}" if said else part
    return said


def _inside(data: Any, part: str | int) -> Any:
    if isinstance(part, int):
        return data[part] if isinstance(data, Sequence) and part < len(data) else None
    return data.get(part) if isinstance(data, Mapping) else None


def _in_text(loc: tuple[int | str, ...], text: Text, model: type[BaseModel]) -> Loc:
    """Turn pydantic's place into the text's: no "[key]" parts, and the field's spelling that was used."""
    parts: list[int | str] = []
    for part in loc:
        spellings = (part, str(part), *_spellings(model_at(model, parts), part))  # str: a key such as 7
        if part != "[key]":
            parts.append(next((s for s in spellings if (*parts, s) in text.lines), part))
    return tuple(parts)


def _spellings(model: type[BaseModel] | None, name: int | str) -> list[str]:
    fields = model.model_fields if model else {}
    return [field for field, info in fields.items() if info.alias == name]


def model_at(model: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel] | None:
    """Return the model that stands at that place of a blueprint, None where there is none."""
    here: Any = model
    for part in loc:
        if isinstance(part, str):
            fields = here.model_fields if isinstance(here, type) and issubclass(here, BaseModel) else {}
            info = fields.get(part) or next((f for f in fields.values() if f.alias == part), None)
            here = _bare(info.annotation) if info else None
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None


def _bare(annotation: Any) -> Any:
    """Strip Annotated, Optional and the sequence around a model."""
    origin = get_origin(annotation)
    if origin is Annotated or origin in (tuple, list):
        return _bare(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return _bare(next(arg for arg in get_args(annotation) if arg is not type(None)))
    return annotation


def message(detail: ErrorDetails, model: type[BaseModel] | None) -> str:
    """Say one of pydantic's errors in plain words; model: what the whole text should be, for hints."""
    kind, loc = detail["type"], detail["loc"]
    if kind == "extra_forbidden":
        return _unknown(str(loc[-1]), model_at(model, loc[:-1]) if model else None)
    said = _WORDS.get(kind)
    if kind == "string_pattern_mismatch":
        said = _FORMS.get(detail["ctx"]["pattern"], said)
    if said is None:
        return detail["msg"].removeprefix("Value error, ")
    said = said.format(**detail.get("ctx", {}))
    return said if kind in _NO_VALUE else f"{said}, found {_short(detail['input'])}"


def _short(value: Any) -> str:
    said = json.dumps(value, ensure_ascii=False, default=str) if not isinstance(value, str) else repr(value)
    said = "nothing" if value is None else said
    return said if len(said) <= 60 else said[:57] + "..."


def _unknown(name: str, model: type[BaseModel] | None) -> str:
    known = [info.alias or field for field, info in model.model_fields.items()] if model else []
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"is not a known field; did you mean {near[0]!r}?"
    return "is not a known field" + (f"; known are {', '.join(known)}" if known else "")
