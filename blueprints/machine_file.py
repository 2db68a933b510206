"""Files of machines to be enrolled: YAML or CSV, hundreds of rows, every mistake with its line.

YAML: a list of machines, or `machines:` beside `defaults:` that hold for all of them. CSV: a first row of field names;
`label.KEY` is a label, `ssh` an address with `ssh.port`, `ssh.user`, … beside it; an empty cell is not given.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from blueprints.blueprint import invalid, read_file
from blueprints.machine import MachineSpec
from blueprints.problems import message
from blueprints.yamltext import Problem, dotted, read

Row = tuple[int | None, dict[str, Any]]  # its line, and what stands there
_INSIDE = {"label": "labels", "ssh": "ssh", "hardware": "hardware"}  # CSV: "label.rack" is labels["rack"]
_TRUTHS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_FORM = 'must be a list of machines, or a mapping with "machines" and perhaps "defaults"'


def load(path: Path) -> list[dict[str, Any]]:
    """Return the machines of a file as plain data, valid as MachineSpec. Raise Invalid with all that is wrong in it."""
    return parse(read_file(path), str(path))


def parse(text: str, file: str) -> list[dict[str, Any]]:
    """Return the machines of a text; file: its name, by which CSV is known. Raise Invalid."""
    problems: list[Problem] = []
    rows = list((_csv if file.lower().endswith(".csv") else _yaml)(text, problems))
    for line, row in rows:
        problems += _wrong(line, row)
    problems += _twice(rows)
    if not rows and not problems:
        problems.append(Problem(1, "", "names no machine"))
    if problems:
        raise invalid([replace(one, file=file) for one in problems], "list of machines", "machine")
    return [row for _, row in rows]


def _yaml(text: str, problems: list[Problem]) -> Iterator[Row]:
    found = read(text)
    problems += found.problems
    data: Any = found.data
    at: tuple[str, ...] = ()
    defaults: dict[str, Any] = {}
    if isinstance(data, Mapping):
        if unknown := sorted(set(data) - {"machines", "defaults"}):
            problems.append(Problem(found.line((unknown[0],)), unknown[0], "is not a known field: " + _FORM))
        defaults, data, at = data.get("defaults") or {}, data.get("machines"), ("machines",)
    if not isinstance(data, list) or not isinstance(defaults, dict):
        if not found.problems:
            problems.append(Problem(1, "", _FORM))
        return
    for index, item in enumerate(data):
        line = found.line((*at, index))
        if isinstance(item, dict):
            yield line, {**defaults, **item}
        else:
            problems.append(Problem(line, dotted((*at, index)), "must be a mapping of fields"))


def _csv(text: str, problems: list[Problem]) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text))
    header = [name.strip() for name in next(reader, [])]
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(header):
            problems.append(Problem(reader.line_num, "", f"has {len(cells)} cells, the first row has {len(header)}"))
            continue
        yield reader.line_num, _of_cells(header, cells)


def _of_cells(header: list[str], cells: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, cell in zip(header, (one.strip() for one in cells), strict=False):
        outer, dot, inner = name.partition(".")
        if not cell:
            continue
        if dot and outer in _INSIDE:
            found.setdefault(_INSIDE[outer], {})[inner] = cell
        elif name == "ssh":
            found.setdefault("ssh", {})["address"] = cell
        else:
            found[name] = _TRUTHS.get(cell.lower(), cell) if name == "verify_tls" else cell
    return found


def _wrong(line: int | None, row: dict[str, Any]) -> Iterator[Problem]:
    try:
        MachineSpec.model_validate(row)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            secret = "password" in detail["loc"]
            said = "is not right" if secret and detail["type"] != "extra_forbidden" else message(detail, MachineSpec)
            yield Problem(line, dotted(tuple(detail["loc"])) or str(row.get("name") or ""), said)


def _twice(rows: list[Row]) -> Iterator[Problem]:
    """Find names and BMCs that stand twice. One BMC may manage several machines, as different systems."""
    for field in ("name", "bmc"):
        first: dict[tuple[Any, ...], int | None] = {}
        for line, row in rows:
            value = row.get(field)
            if not isinstance(value, str):
                continue
            key = (value,) if field == "name" else (value.rstrip("/").lower(), row.get("system") or "")
            if key in first:
                yield Problem(line, field, f"{value!r} is used twice (first on line {first[key]})")
            else:
                first[key] = line
