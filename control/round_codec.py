"""What a decision was made from, as bytes and back, whole or as what differs from something alike.

Values are those of placement/model.py: frozen dataclasses, tuples, mappings, sets, arrays. What comes back is equal to
the last bit.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import orjson

from control.placement import model

_SCALARS = frozenset((str, int, float, bool, type(None)))
_SAME = 0  # a patch: nothing differs
_CLASSES = {name: kind for name, kind in vars(model).items() if isinstance(kind, type) and is_dataclass(kind)}
_FEW = 4  # a patch by places pays while less than one in so many differs


def dump(plain: Any, long: Mapping[str, Any] | None = None) -> bytes:
    """Return what is in JSON form as bytes. long: more of the same object, without floats.

    Of floats orjson would lose those that are infinite.
    """
    text = json.dumps(plain, separators=(",", ":")).encode()
    if long:
        text = text[:-1] + b"," + orjson.dumps(long)[1:]
    return zlib.compress(text, 1)


def load(data: bytes) -> Any:
    """Return what was dumped."""
    return json.loads(zlib.decompress(data))


def _array(value: np.ndarray[Any, Any]) -> Any:
    return ["array", value.dtype.str, value.tolist()]


def plain(value: Any) -> Any:
    """Return a value in JSON form: scalars as they are, anything else as [kind, …]. Raise TypeError."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return _array(value)
    if is_dataclass(value):
        return ["class", type(value).__name__, [plain(getattr(value, one.name)) for one in fields(value)]]
    if isinstance(value, Mapping):
        return ["map", [[plain(key), one if type(one) in _SCALARS else plain(one)] for key, one in value.items()]]
    if isinstance(value, frozenset | set):
        return ["set", [one if type(one) in _SCALARS else plain(one) for one in sorted(value)]]
    if isinstance(value, tuple | list):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return [kind, [one if type(one) in _SCALARS else plain(one) for one in value]]
    raise TypeError(f"{type(value).__name__} has no form in a record")


_BACK: dict[str, Callable[..., Any]] = {
    "array": lambda kind, values: np.array(values, np.dtype(kind)),
    "class": lambda name, values: _CLASSES[name](*map(back, values)),
    "map": lambda pairs: {back(key): back(one) for key, one in pairs},
    "set": lambda values: frozenset(map(back, values)),
    "tuple": lambda values: tuple(map(back, values)),
    "list": lambda values: list(map(back, values)),
}


def back(said: Any) -> Any:
    """Return the value of a JSON form."""
    return _BACK[said[0]](*said[1:]) if isinstance(said, list) else said


def patch(old: Any, new: Any) -> Any:
    """Return in JSON form how new differs: _SAME, or [kind, …]: "new" all of it, "parts" of it, "at" some places,
    "keys": these and no others."""
    if old is new:
        return _SAME
    if type(old) is type(new):
        if isinstance(new, np.ndarray):
            return _patch_array(old, new)
        if is_dataclass(new):
            return _parts({one.name: (getattr(old, one.name), getattr(new, one.name)) for one in fields(new)})
        if isinstance(new, Mapping):
            return _patch_mapping(old, new)
        if isinstance(new, tuple):
            return _patch_tuple(old, new)
        if isinstance(new, frozenset) and old:
            return ["items", sorted(new - old), sorted(old - new)] if old != new else _SAME
        if old == new:
            return _SAME
    return ["new", plain(new)]


def _patch_mapping(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> Any:
    if list(old) != list(new):
        parts = [patch(old[key], one) if key in old else ["new", plain(one)] for key, one in new.items()]
        return ["keys", [[plain(key), part] for key, part in zip(new, parts, strict=True)]]
    return _parts({str(n): (old[key], new[key]) for n, key in enumerate(new)})


def _parts(pairs: Mapping[str, tuple[Any, Any]]) -> Any:
    found = {name: part for name, (a, b) in pairs.items() if (part := patch(a, b)) != _SAME}
    return ["parts", found] if found else _SAME


def _patch_array(old: np.ndarray[Any, Any], new: np.ndarray[Any, Any]) -> Any:
    if old.dtype != new.dtype or old.shape != new.shape or new.ndim != 1:
        return ["new", _array(new)]
    at = np.flatnonzero(old != new)
    if not len(at):
        return _SAME
    return ["at", at.tolist(), new[at].tolist()] if _FEW * len(at) < len(new) else ["new", _array(new)]


def _patch_tuple(old: tuple[Any, ...], new: tuple[Any, ...]) -> Any:
    """Tell places that differ; where one is longer, what stands instead between what is alike at both ends."""
    if any(map(is_dataclass, new[:1])):  # few, and they may hold arrays
        pairs = {str(n): pair for n, pair in enumerate(zip(old, new, strict=False))}
        return _parts(pairs) if len(old) == len(new) else ["new", plain(new)]
    if old == new:
        return _SAME
    if len(old) == len(new):
        at = [n for n, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
        return ["at", at, [plain(new[n]) for n in at]]
    alike = min(len(old), len(new))
    begin = next((n for n in range(alike) if old[n] != new[n]), alike)
    end = next((n for n in range(alike - begin) if old[-1 - n] != new[-1 - n]), alike - begin)
    return ["between", begin, end, [plain(one) for one in new[begin : len(new) - end]]]


def patched(old: Any, said: Any) -> Any:
    """Return the new value, given the old one and how it differs."""
    if said == _SAME:
        return old
    kind, *rest = said
    if kind == "new":
        return back(rest[0])
    if kind == "keys":
        keys = [(back(key), part) for key, part in rest[0]]
        return {key: patched(old.get(key), part) for key, part in keys}
    if kind == "between":
        begin, end, values = rest
        return (*old[:begin], *map(back, values), *old[len(old) - end :])
    if kind == "at":
        return _placed(old, *rest)
    if kind == "items":
        return (old | set(rest[0])) - set(rest[1])
    return _with_parts(old, rest[0])


def _placed(old: Any, places: list[int], values: list[Any]) -> Any:
    if isinstance(old, np.ndarray):
        array = old.copy()
        array[places] = values
        return array
    row = list(old)
    for place, value in zip(places, values, strict=True):
        row[place] = back(value)
    return tuple(row)


def _with_parts(old: Any, parts: Mapping[str, Any]) -> Any:
    if isinstance(old, tuple):
        return tuple(patched(value, parts.get(str(n), _SAME)) for n, value in enumerate(old))
    if not is_dataclass(old):
        return {key: patched(value, parts.get(str(n), _SAME)) for n, (key, value) in enumerate(old.items())}
    made: Any = type(old)
    return made(**{one.name: patched(getattr(old, one.name), parts.get(one.name, _SAME)) for one in fields(old)})
