"""The published JSON Schemas, the module's command line, and the library of blueprints."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from blueprints import __main__ as command
from blueprints.blueprint import load
from blueprints.change import PARAMETERS
from blueprints.problems import _FORMS
from blueprints.schema import MODELS, schema
from core.errors import NotFound

LIBRARY = sorted((Path(command.__file__).parent / "library").glob("*.yaml"))


@pytest.mark.parametrize("noun", sorted(MODELS))
def test_each_schema_is_a_schema(noun: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(noun))
    assert schema(noun)["additionalProperties"] is False


def test_plural_is_understood_and_a_typo_is_answered() -> None:
    assert schema("instances") == schema("instance")
    with pytest.raises(NotFound, match="did you mean instance"):
        schema("instnace")


def test_there_are_enough_blueprints_and_each_says_what_it_is() -> None:
    assert len(LIBRARY) >= 8
    assert all(re.match(r"# \S.{20}", file.read_text()) for file in LIBRARY)


@pytest.mark.parametrize("file", LIBRARY, ids=lambda file: file.stem)
def test_library_is_valid_by_loader_and_by_schema(file: Path) -> None:
    blueprint = load(file)
    assert blueprint.expanded()
    assert {spec.image for spec in blueprint.instances} <= {"tiny", "busybox"}
    assert {nic.network for spec in blueprint.instances for nic in spec.nics} <= {"lan", "containers"}
    jsonschema.validate(yaml.safe_load(file.read_text()), schema("blueprint"))


def test_schema_and_loader_refuse_the_same() -> None:
    wrong = {"instances": [{"name": "web", "image": "tiny", "memry": 5}]}
    with pytest.raises(jsonschema.ValidationError, match="memry"):
        jsonschema.validate(wrong, schema("blueprint"))


def test_command_prints_a_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["schema", "instance"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "InstanceSpec"


def test_command_reads_only_what_was_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("hosts:\ninstances: [{name: a, image: tiny, memory: 1GiB}]")
    assert command.main(["read", str(file)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"instances": [{"name": "a", "image": "tiny", "memory": 1024}]}


def test_command_complains_by_line_and_by_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("hosts: 5\n")
    assert command.main(["validate", str(file)]) == 2
    assert capsys.readouterr().err == f"{file}:1: hosts: must be a list, found 5\n"
    assert command.main(["--json", "validate", str(file)]) == 2
    assert json.loads(capsys.readouterr().err)["evidence"]["errors"][0]["line"] == 1
    assert command.main(["schema", "zebra"]) == 3


def test_module_runs_and_reads_stdin() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "blueprints", "validate", "-"], input="instances: [{name: a, image: b}]",
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "valid: 1 instance\n")


def _patterns(schema: Any) -> set[str]:
    inside = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    own = {schema["pattern"]} if isinstance(schema, dict) and isinstance(schema.get("pattern"), str) else set()
    return own.union(*(_patterns(part) for part in inside))


def test_every_pattern_has_words() -> None:
    models = (*MODELS.values(), *PARAMETERS.values())
    used = set[str]().union(*(_patterns(model.model_json_schema()) for model in models))
    assert len(used) > 8
    assert sorted(used - set(_FORMS)) == []
