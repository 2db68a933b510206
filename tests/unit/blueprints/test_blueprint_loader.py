"""Blueprints: what is accepted, and what is said, and where, about what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blueprints.blueprint import Blueprint, load, load_files, parse
from core.errors import Invalid

INSTANCE = "instances:\n- name: web\n  image: tiny\n"


def errors(text: str | Path) -> list[tuple[int | None, str, str]]:
    with pytest.raises(Invalid) as caught:
        load(text)
    return [(e["line"], e["field"], e["message"]) for e in caught.value.evidence["errors"]]


def test_the_nouns_are_plural_and_all_are_lists_of_specs() -> None:
    blueprint = load(
        "clusters: [{name: a}]\ndatastores: [{name: d, path: /d}]\nhosts: [{name: h, address: 10.0.0.1}]\n"
        "networks: [{name: n, bridge: br0, addressing: dhcp}]\nimages: [{name: i, source: /i}]\n"
        "instances: [{name: v, image: i, memory: 1GiB, count: 2}]\n"
    )
    assert [len(getattr(blueprint, noun)) for noun in Blueprint.model_fields] == [1] * 6
    assert [(i.name, i.memory_mib, i.count) for i in blueprint.expanded()] == [("v-1", 1024, None), ("v-2", 1024, None)]


@pytest.mark.parametrize("text", ["", "# only a comment\n", "instances:\n", "instances: []"])
def test_nothing_asked_for_is_a_blueprint(text: str) -> None:
    assert load(text) == Blueprint()


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("memry: 5", "is not a known field; did you mean 'memory'?"),
        ("zzz: 5", "is not a known field; known are name, kind, image, cpu, memory, disk"),
        ("memory: -512MiB", "a size cannot be negative, found -512MiB"),
        ("memory: -1", "a size cannot be negative, found -1"),
        ("memory: 0", "must be more than 0, found 0"),
        ("memory: lots", "'lots' is not a size"),
        ("cpu: fast", "must be a number, found 'fast'"),
        ("cpu: -1", "must be more than 0, found -1"),
        ("count: 1.5", "must be a whole number, found 1.5"),
        ("count: 10001", "must be at most 10000, found 10001"),
        ("kind: jail", "must be 'vm' or 'container', found 'jail'"),
        ("labels: 7", "must be a mapping of names to values"),
        ("disks: data", "must be a list, found 'data'"),
        ("ssh_keys: 5", "must be a list, found 5"),
        ("user_data: 5", "must be text: put it in quotes, found 5"),
        ("image: Tiny_1", "stands here twice (first on line 3)"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_its_line(field: str, message: str) -> None:
    (line, name, said), *_ = errors(INSTANCE + "  " + field)
    assert (line, name.split(".")[-1]) == (4, field.split(":")[0])
    assert said.startswith(message)


@pytest.mark.parametrize(
    ("part", "line", "field", "message"),
    [
        ("disks: [{name: data}]", 4, "instances[web].disks[data].size", "is missing"),
        ("disks:\n  - name: a\n    sise: 1", 5, "instances[web].disks[a].size", "is missing"),
        ("nics:\n  - network: lan\n    address: 10.0.0", 6, "instances[web].nics[0].address", "must be an IPv4"),
        ("requirements: {hots: h1}", 4, "instances[web].requirements.hots", "is not a known field; did you mean"),
        ("labels:\n    tier: 1", 5, "instances[web].labels.tier", "must be text"),
        ("labels:\n    7: a", 5, "instances[web].labels.7", "must be text"),
        ("memory_mib: -1", 4, "instances[web].memory_mib", "a size cannot be negative"),
    ],
)  # fmt: skip
def test_parts_inside_are_named_by_their_path(part: str, line: int, field: str, message: str) -> None:
    found = errors(INSTANCE + "  " + part)
    assert [(at, name) for at, name, said in found if said.startswith(message)] == [(line, field)]


def test_all_errors_are_told_at_once_in_the_order_of_lines() -> None:
    found = errors("hosts:\n- {name: h}\ninstance: []\n" + INSTANCE + "  cpu: x\n- name: web\n- 5\n")
    assert [(line, field) for line, field, _ in found] == [
        (2, "hosts[h].address"), (3, "instance"), (7, "instances[web].cpu"),
        (8, "instances[web].image"), (8, "instances[1].name"), (9, "instances[2]"),
    ]  # fmt: skip


def test_a_duplicate_name_says_where_the_first_one_stands() -> None:
    assert errors(INSTANCE + "- {name: web, image: tiny}\n") == [
        (4, "instances[1].name", "the name 'web' is used twice (first on line 2)")
    ]


def test_a_name_made_by_count_clashes_as_well() -> None:
    found = errors(INSTANCE + "  count: 3\n- {name: web-2, image: tiny}\n")
    assert found == [(5, "instances[1].name", "the name 'web-2' is used twice (first on line 2)")]


def test_a_count_must_not_make_names_too_long() -> None:
    text = f"instances: [{{name: {'a' * 62}, image: tiny, count: 12}}]"
    assert "longer than the 63 characters" in errors(text)[0][2]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("instances: [", 1, "this is not YAML: while parsing a flow node"),
        ("instances:\n  - a\n bad", 3, "this is not YAML: "),
        ("hosts:\n\t- a", 2, "this is not YAML: while scanning for the next token, found character '\\t'"),
        ("a: 1\n---\nb: 2\n", 2, "this is not YAML: expected a single document"),
        ("hosts: \x00", 1, "this is not YAML: unacceptable character"),
        ("hosts: &a [*a]", 1, "a part contains itself"),
        ("hosts: !!python/object:os.system {}", 1, "this is not YAML: could not determine a constructor"),
        ("[" * 5000, 1, "this is not YAML: it is nested too deeply"),
    ],
)
def test_what_is_not_yaml_is_said_with_its_line(text: str, line: int, message: str) -> None:
    (at, _, said), *_ = errors(text)
    assert at == line
    assert said.startswith(message)


@pytest.mark.parametrize("text", ["- 1", "just text", "7"])
def test_a_blueprint_is_a_mapping(text: str) -> None:
    assert errors(text) == [(1, "", "must be a mapping of fields")]


def test_errors_of_a_file_name_the_file(tmp_path: Path) -> None:
    file = tmp_path / "cloud.yaml"
    file.write_text(INSTANCE + "  memry: 5\n")
    with pytest.raises(Invalid, match=rf"{file}:4: instances\[web\].memry: is not a known field") as caught:
        load(file)
    assert caught.value.evidence["errors"][0]["file"] == str(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"\xff\xfe\xff", "not UTF-8"), (b" " * (16 * 2**20 + 1), "larger")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "cloud.yaml"
    if content is not None:
        file.write_bytes(content)
    ((line, _, said),) = errors(file)
    assert line is None
    assert message in said


def test_several_files_are_one_blueprint(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("hosts: [{name: h1, address: 10.0.0.1}]\n")
    second.write_text(INSTANCE)
    both = load_files([first, second])
    assert ([h.name for h in both.hosts], [i.name for i in both.instances]) == (["h1"], ["web"])


def test_errors_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.yaml", "b.yaml", "c.yaml")]
    for file, text in zip(files, (INSTANCE, INSTANCE, "hosts: 5"), strict=True):
        file.write_text(text)
    with pytest.raises(Invalid) as caught:
        load_files(files)
    found = [(Path(e["file"]).name, e["field"], e["message"]) for e in caught.value.evidence["errors"]]
    assert found == [
        ("b.yaml", "instances", f"the name 'web' stands in {files[0]} as well"),
        ("c.yaml", "hosts", "must be a list, found 5"),
    ]


def test_plain_data_is_judged_by_the_same_rules() -> None:
    data: dict[str, Any] = {"instances": [{"name": "a", "image": "i"}, {"name": "a", "image": "i", "cpus": 2}]}
    with pytest.raises(Invalid) as caught:
        parse(data)
    assert [(e["line"], e["field"]) for e in caught.value.evidence["errors"]] == [
        (None, "instances[a].cpus"), (None, "instances[1].name"),
    ]  # fmt: skip
    assert parse({"instances": data["instances"][:1]}).instances[0].memory_mib == 512


def test_a_model_made_in_code_needs_unique_names_too() -> None:
    one = {"name": "a", "image": "i"}
    with pytest.raises(ValueError, match="used twice: a"):
        Blueprint.model_validate({"instances": [one, one]})


def test_yaml_merges_and_anchors_work() -> None:
    text = "x-base: &base {image: tiny}\ninstances:\n- {name: a, <<: *base}\n"
    assert [field for _, field, _ in errors(text)] == ["x-base"]  # no private corners at the top: a typo hides there
    anchored = "instances:\n- &base {name: a, image: tiny, cpu: 2}\n- {<<: *base, name: b}\n"
    assert [(i.name, i.cpu) for i in load(anchored).instances] == [("a", 2.0), ("b", 2.0)]
