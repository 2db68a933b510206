"""Requirements and ranks: what they mean, where they are wrong, and how OpenNebula's are taken over."""

from __future__ import annotations

import numpy as np
import pytest

from control.placement import engine, opennebula
from control.placement.expressions import Type, holds, number_of, parse
from control.placement.model import Request, Shape
from control.placement.work import start
from core.errors import Invalid
from tests.property.oracle import Machine, view_of

HOSTS = [
    Machine("web-1", cluster="edge", labels={"rack": "r1", "watt": "200"}, cpus=4, memory_mib=1024, instances=1),
    Machine("web-2", labels={"rack": "r2", "watt": "many"}, cpus=8, memory_mib=2048, cpu_used_m=7000),
    Machine("db-1", labels={}, cpus=16, memory_mib=4096, arch="arm64"),
]
VIEW = view_of(HOSTS, {})
SHAPE = Shape("vm", 2000, 512, 0, own_labels=(("rack", "r2"),))


def names(text: str) -> list[str]:
    return [name for name, good in zip(VIEW.names, holds(text, VIEW, start(VIEW), SHAPE), strict=True) if good]


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ('cluster == "edge"', ["web-1"]),
        ('cluster != "edge"', ["web-2", "db-1"]),
        ("cpu_free >= 4", ["web-1", "db-1"]),
        ("memory_free_mib / 1024 > 1 + 1", ["db-1"]),
        ("1 + 2 * 3 == 7", ["web-1", "web-2", "db-1"]),
        ("8 - 4 - 2 == 2 and 16 / 4 / 2 == 2", ["web-1", "web-2", "db-1"]),
        ("-cpus + 16 == 0", ["db-1"]),
        ('name like "web-*"', ["web-1", "web-2"]),
        ('label.rack in ["r1", \'r9\']', ["web-1"]),
        ('not label.rack == "r1"', ["web-2", "db-1"]),
        ('label.rack != "r1"', ["web-2", "db-1"]),
        ('label.rack < "r2"', ["web-1"]),
        ("number(label.watt) < 1000", ["web-1"]),
        ("not number(label.watt) < 1000", ["web-2", "db-1"]),
        ("instances / 0 > 1 or cpus / 0 < 1", []),
        ("label.rack == instance.label.rack", ["web-2"]),
        ("instance.cpu * 4 <= cpus", ["web-2", "db-1"]),
        ('arch == "arm64" or cluster == "edge" and cpus > 100', ["db-1"]),
        ('(arch == "arm64" or cluster == "edge") and cpus < 100', ["web-1", "db-1"]),
        ('"r1" == label.rack', ["web-1"]),
    ],
)
def test_a_requirement_holds_on_these_hosts(text: str, hosts: list[str]) -> None:
    assert names(text) == hosts


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", 1, "expected a value, found 'the end'"),
        ("cpus >", 7, "expected a value"),
        ("cpus > 4 cpus", 10, "found 'cpus' where an operator or the end belongs"),
        ("colour == 3", 1, "there is no attribute 'colour'"),
        ('cpus == "4"', 6, "a number cannot be compared with text"),
        ("name + 1 == 2", 1, "expected a number, found text"),
        ('cpus like "4"', 1, "expected text, found a number"),
        ("name like 4", 11, "expected a text in quotes"),
        ("cpus > 1 and 3", 14, "expected true or false, found a number"),
        ("(cpus > 1", 10, "expected ')'"),
        ("cpus > $x", 8, "'$' is not part of this language"),
        ("__import__('os')", 1, "there is no attribute '__import__'"),
        ("cpus.__class__ == 1", 1, "there is no attribute 'cpus.__class__'"),
        ('name in ["a" "b"]', 14, "expected ']'"),
        ("(" * 60 + "1" + ")" * 60, 51, "more than 50 levels"),
    ],
)
def test_an_error_names_the_column(text: str, column: int, message: str) -> None:
    with pytest.raises(Invalid) as told:
        parse(text)
    assert f"column {column}:" in told.value.message
    assert message in told.value.message


def test_a_requirement_is_no_number_and_a_text_has_its_length() -> None:
    with pytest.raises(Invalid, match="must come to true or false"):
        parse("cpus + 1")
    with pytest.raises(Invalid, match="must come to a number"):
        parse("cpus > 1", Type.NUMBER)
    with pytest.raises(Invalid, match="at most 1024"):
        parse("1" * 2000)
    assert holds("+".join(["1"] * 500) + "==500", VIEW, start(VIEW), SHAPE).all()


@pytest.mark.parametrize(
    ("theirs", "hosts"),
    [
        ('CLUSTER = "edge" | NAME = "db-1"', ["web-1", "db-1"]),
        ('!(CLUSTER = "edge") & FREE_CPU > 200', ["db-1"]),
        ('NAME = "web*"', ["web-1", "web-2"]),
        ('NAME != "web*"', ["db-1"]),
        ("FREE_MEMORY >= 2097152", ["web-2", "db-1"]),
        ('rack = "r1"', ["web-1"]),
        ("watt < 300", ["web-1"]),
        ("RUNNING_VMS = 0", ["web-2", "db-1"]),
    ],
)
def test_opennebulas_requirements_are_taken_over(theirs: str, hosts: list[str]) -> None:
    assert names(opennebula.requirements(theirs)) == hosts


def test_opennebulas_ranks_are_taken_over() -> None:
    ours = opennebula.rank("FREE_CPU - RUNNING_VMS * 50")
    assert number_of(ours, VIEW, start(VIEW), SHAPE).tolist() == [350.0, 100.0, 1600.0]
    assert np.isnan(number_of(opennebula.rank("watt"), VIEW, start(VIEW), SHAPE)).tolist() == [False, True, True]


@pytest.mark.parametrize("theirs", ["FREE_CPU >", "FREE_CPU = \"a\" &", "A @> 3", "FREE_CPU + 1"])
def test_what_is_wrong_there_is_refused(theirs: str) -> None:
    with pytest.raises(Invalid, match="OpenNebula's"):
        opennebula.requirements(theirs)


def put(**asked: object) -> tuple[str | None, dict[str, object]]:
    shape = Shape("vm", 1000, 256, 0, **asked)  # type: ignore[arg-type]
    machines = [Machine(m.name, labels=m.labels, cpus=m.cpus, disk={"local": (1000, 0)}) for m in HOSTS]
    view = view_of(machines, {})
    (choice,) = engine.choose(view, [Request("r", "r", shape)])
    return None if choice.host is None else view.names[choice.host], choice.record


def test_a_requirement_keeps_hosts_out_and_a_rank_decides() -> None:
    assert put(where='label.rack == "r2"')[0] == "web-2"
    assert put(rank="cpus")[0] == "db-1"
    assert put(rank="-cpus")[0] == "web-1"
    assert put(rank="number(label.watt)")[0] == "web-1", "the others have no such number"
    host, why = put(where="cpu_free > 100")
    assert host is None
    assert "requires on db-1, web-1, web-2 (does not satisfy cpu_free > 100)" in str(why["summary"])


def test_what_is_left_counts_in_a_requirement_also_within_a_batch() -> None:
    machines = [Machine(f"h{n}", cpus=4, disk={"local": (1000, 0)}) for n in range(2)]
    shapes = [Shape("vm", 1000, 10, 0, where="instances < 2")] * 5
    choices = engine.choose(view_of(machines, {}), [Request(f"r{n}", f"r{n}", s) for n, s in enumerate(shapes)])
    assert sorted(str(choice.host) for choice in choices) == ["0", "0", "1", "1", "None"]
