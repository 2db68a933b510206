"""rackflow simulate: the process it starts, its tables, JSON and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from control import tables
from control.store import Store
from tests.rig import Rig
from tests.unit.cli.conftest import Cli

CSV = """\
name,arrival_s,lifetime_s,cpu,memory_mib,owner
a,0,100,4,4096,x
b,0,,4,4096,y
c,50,10,8,1024,x
d,200,9,1,64,x
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    made = tmp_path / "arrivals.csv"
    made.write_text(CSV)
    return str(made)


def test_json_has_the_figures(cli: Cli, file: str) -> None:
    asked = ("--arrivals", file, "--hosts", "2x8c/8GiB", "--find-min-hosts", "--fit", "2,1GiB", "-o", "json")
    said = cli("simulate", *asked)
    assert said.code == 0
    found = json.loads(said.out)
    assert found.pop("cpu_s") > 0
    assert found == {
        "policy": "balanced", "hosts": 2, "placed": 4, "rejected": 0, "hosts_used_peak": 2,
        "empty_hosts_mean_percent": None, "first_rejection": None, "moved": 0, "stranded": 0, "stuck": 0,
        "image_copies": 0, "fits": 5, "min_hosts": 2,
    }  # fmt: skip


def test_the_table_and_why_it_ran_out(cli: Cli, file: str) -> None:
    said = cli("simulate", "--arrivals", file, "--hosts", "1x8c/8GiB", "--until-rejection")
    assert said.out.splitlines()[1].split()[:7] == ["balanced", "1", "2", "1", "1", "-", "c"]
    assert "c fitted nowhere at 50 s: cpu on h0 (needs 8 cores, 0 of 8 are free)" in said.err
    assert "one more host like h0 would hold it" in said.err


def test_disks_images_and_networks(cli: Cli, tmp_path: Path) -> None:
    rows = [f"i{n},{n},,1,1024,20,debian,2,lan" for n in range(5)]
    made = tmp_path / "arrivals.csv"
    header = "name,arrival_s,lifetime_s,cpu,memory_mib,disk_gib,image,image_gib,network"
    made.write_text("\n".join([header, *rows]))
    asked = ("--arrivals", made, "--hosts", "2x8c/16GiB/50GiB", "--network", "lan=3", "--fit", "1,1GiB,20GiB")
    said = cli("simulate", *asked)
    assert said.code == 0
    assert said.out.splitlines()[1].split()[:4] == ["balanced", "2", "3", "2"]
    assert "network lan has 0 of 3 addresses free, 1 needed" in said.err
    assert json.loads(cli("simulate", *asked, "-o", "json").out)["image_copies"] == 2
    without = cli("simulate", *asked[:2], "--hosts", "2x8c/16GiB/50GiB")
    assert without.code == 2
    assert "--network lan=250" in without.err


def test_policies_side_by_side(cli: Cli, file: str) -> None:
    said = cli("simulate", "--arrivals", file, "--hosts", "2x8c/8GiB", "--compare", "-o", "name")
    assert {"balanced", "pack", "spread"} <= set(said.out.split())


def test_a_history_that_says_nothing_is_not_used(cli: Cli, file: str) -> None:
    said = cli("simulate", "--arrivals", file, "--hosts", "2x8c/8GiB", "--history", file)
    assert said.code == 0
    assert "is not used" in said.err


def test_errors_say_what_to_do(cli: Cli, file: str) -> None:
    larger = cli("simulate", "--arrivals", file, "--hosts", "1x2c/8GiB", "--find-min-hosts")
    assert (larger.code, larger.out) == (6, "")
    assert "no number of these hosts would do" in larger.err
    assert "what to do: simulate with larger hosts" in larger.err
    both = cli("simulate", "--arrivals", file, "--hosts", "1x8c/8GiB", "--find-min-hosts", "--until-rejection")
    assert (both.code, both.out) == (2, "")
    assert cli("simulate").code == 2
    assert cli("simulate", "--arrivals", file).code == 2


def test_a_record_is_replayed(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'record.db'}"
    monkeypatch.setenv("RACKFLOW_DATABASE_URL", url)
    store = Store(url)
    store.migrate()
    cloud = Rig(store.write_now)
    cloud.network()
    cloud.image()
    cloud.host("h1")
    cloud.host("h2")
    cloud.deploy("web")
    said = cli("simulate", "--recorded")
    assert said.code == 0
    assert "1 of 1 decisions in 1 round are the same" in said.err
    t = tables.placement_round
    store.write_now(lambda c: c.execute(sa.update(t).where(t.c.kind == "round").values(policy="spread")))
    differs = cli("simulate", "--recorded", "-o", "json")
    assert differs.code == 1, "the scores in the explanation are those of another policy"
    assert json.loads(differs.out)["same_rounds"] == 0
    store.close_now()
