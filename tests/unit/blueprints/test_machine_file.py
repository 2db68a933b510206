"""Files of machines: YAML and CSV, and every mistake with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from blueprints.machine_file import load, parse
from core.errors import Invalid

YAML = """
defaults: {user: admin, password_file: /etc/rackflow/bmc, verify_tls: false}
machines:
- {name: m1, bmc: https://10.0.0.1}
- name: m2
  bmc: ipmi://10.0.0.2
  user: root
  labels: {rack: r1}
"""
CSV = """name,bmc,user,password,verify_tls,label.rack,ssh,ssh.user
m1,https://10.0.0.1,admin,hunter2,no,r1,10.1.0.1,root

m2,ipmi://10.0.0.2,,,,,,
"""


def wrong(text: str, file: str) -> list[tuple[int | None, str, str]]:
    with pytest.raises(Invalid) as caught:
        parse(text, file)
    assert "hunter2" not in str(caught.value.to_dict())
    return [(one["line"], one["field"], one["message"]) for one in caught.value.evidence["errors"]]


def test_defaults_hold_where_a_machine_says_nothing_else() -> None:
    one, two = parse(YAML, "machines.yaml")
    assert one == {
        "name": "m1", "bmc": "https://10.0.0.1", "user": "admin", "password_file": "/etc/rackflow/bmc",
        "verify_tls": False,
    }  # fmt: skip
    assert (two["user"], two["labels"]) == ("root", {"rack": "r1"})
    assert parse("- {name: m1, bmc: 'https://10.0.0.1'}", "x.yaml") == [{"name": "m1", "bmc": "https://10.0.0.1"}]


def test_a_table_of_cells(tmp_path: Path) -> None:
    path = tmp_path / "machines.CSV"
    path.write_text("\ufeff" + CSV)
    one, two = load(path)
    assert one == {
        "name": "m1", "bmc": "https://10.0.0.1", "user": "admin", "password": "hunter2", "verify_tls": False,
        "labels": {"rack": "r1"}, "ssh": {"address": "10.1.0.1", "user": "root"},
    }  # fmt: skip
    assert two == {"name": "m2", "bmc": "ipmi://10.0.0.2"}


def test_every_row_that_is_wrong_is_told_with_its_line() -> None:
    text = "name,bmc,usr,password\nM1,https://10.0.0.1,,hunter2\nm2,10.0.0.2,,\nm3,https://10.0.0.3,x,\nm4,a,b,c,d\n"
    found = wrong(text, "m.csv")
    assert [(line, field) for line, field, _ in found] == [(2, "name"), (3, "bmc"), (4, "usr"), (5, "")]
    assert "did you mean 'user'?" in found[2][2]
    assert found[3][2] == "has 5 cells, the first row has 4"


def test_what_stands_twice_is_told_with_its_first_line() -> None:
    text = "- {name: a, bmc: 'https://x'}\n- {name: a, bmc: 'https://y'}\n- {name: b, bmc: 'HTTPS://X/'}\n"
    found = wrong(text.replace("HTTPS://X/", "https://x/"), "m.yaml")
    assert found == [
        (2, "name", "'a' is used twice (first on line 1)"), (3, "bmc", "'https://x/' is used twice (first on line 1)"),
    ]  # fmt: skip
    assert len(parse("- {name: a, bmc: 'https://x'}\n- {name: b, bmc: 'https://x', system: '2'}\n", "m.yaml")) == 2


@pytest.mark.parametrize(("text", "said"), [
    ("", "must be a list"), ("machines: {}", "must be a list"), ("a: [", "not YAML"), ("[1]", "must be a mapping"),
    ("hosts: []", "is not a known field"),
])  # fmt: skip
def test_what_is_no_list_of_machines(text: str, said: str) -> None:
    assert said in wrong(text, "m.yaml")[0][2]
    assert wrong("name,bmc\n", "m.csv")[0][2] == "names no machine"
