"""`python -m blueprints schema NOUN | validate FILE... | read FILE... | machines FILE...`: for people, editors and the
command line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blueprints import machine_file
from blueprints.blueprint import NOUNS, Blueprint, load, load_files
from blueprints.schema import MODELS, schema
from core.errors import Invalid, RackflowError


def _plain(blueprint: Blueprint) -> dict[str, Any]:
    """Return only what was asked for, so that the reader fills in its own defaults."""
    said = blueprint.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {noun: items for noun, items in said.items() if items}


def _loaded(files: Sequence[str]) -> Blueprint:
    if files == ["-"]:
        return load(sys.stdin.read(), file="<stdin>")
    return load_files([Path(file) for file in files])


def _machines(file: str) -> list[dict[str, Any]]:
    return machine_file.parse(sys.stdin.read(), "<stdin>") if file == "-" else machine_file.load(Path(file))


def _run(options: argparse.Namespace) -> None:
    if options.verb == "schema":
        print(json.dumps(schema(options.noun), indent=2))
    elif options.verb == "read":
        print(json.dumps(_plain(_loaded(options.files))))
    elif options.verb == "machines":
        print(json.dumps([row for file in options.files for row in _machines(file)], default=str))
    else:
        blueprint = _loaded(options.files)
        counts = [(noun, len(getattr(blueprint, noun))) for noun in NOUNS]
        said = [f"{n} {noun if n > 1 else noun.removesuffix('s')}" for noun, n in counts if n]
        print("valid: " + (", ".join(said) or "nothing asked for"))


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m blueprints")
    parser.add_argument("--json", action="store_true", help="errors as one JSON object on stderr")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("schema", help="print a JSON Schema").add_argument("noun", help=", ".join(MODELS))
    for verb, words in (
        ("validate", "say what is wrong"), ("read", "print as JSON, several files as one"),
        ("machines", "print machines to be enrolled as JSON, of YAML or CSV"),
    ):  # fmt: skip
        verbs.add_parser(verb, help=words).add_argument("files", nargs="+", metavar="FILE", help="- is stdin")
    return parser.parse_args(argv)


def _complain(error: RackflowError, as_json: bool) -> None:
    if as_json:
        print(json.dumps(error.to_dict()), file=sys.stderr)
        return
    lines = [_line(entry) for entry in error.evidence.get("errors", ())] if isinstance(error, Invalid) else []
    print("\n".join(lines or [f"error: {error}"]), file=sys.stderr)


def _line(entry: dict[str, Any]) -> str:
    place = ":".join(str(part) for part in (entry["file"], entry["line"]) if part)
    return ": ".join(part for part in (place, entry["field"], entry["message"]) if part)


def main(argv: Sequence[str]) -> int:
    """Run one verb and return the exit code: 0, 2 for what is not valid, 3 for a noun that is not known."""
    options = _options(argv)
    try:
        _run(options)
        sys.stdout.flush()
    except RackflowError as error:
        _complain(error, options.json)
        return error.exit_code
    except BrokenPipeError:  # the reader, e.g. `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
