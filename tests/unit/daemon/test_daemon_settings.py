"""Settings: which source wins, what is refused, and that the children get the same."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from core.errors import Invalid
from daemon.settings import AUTO, child_environment, load, to_environment


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No RACKFLOW_* of the caller, and a configuration file of the test's own."""
    for name in [name for name in os.environ if name.startswith("RACKFLOW_")]:
        monkeypatch.delenv(name)
    file = tmp_path / "config.toml"
    monkeypatch.setenv("RACKFLOW_CONFIG", str(file))
    return file


def test_a_flag_wins_over_the_environment_over_the_file(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean.write_text('api_port = 1111\nprefect_port = 2222\nwork_pool = "file"\n')
    monkeypatch.setenv("RACKFLOW_API_PORT", "3333")
    monkeypatch.setenv("RACKFLOW_PREFECT_PORT", "4444")
    found = load({"api_port": 5555, "prefect_port": None})
    assert (found.api_port, found.prefect_port, found.work_pool) == (5555, 4444, "file")


def test_without_anything_ports_are_chosen_and_the_record_is_a_file_in_the_data_folder(tmp_path: Path) -> None:
    found = load({"data_dir": tmp_path})
    assert found.api_port == found.prefect_port == AUTO
    assert found.database_url == f"sqlite:///{tmp_path}/rackflow.db"


def test_nested_values_come_from_the_environment_and_from_tables_of_the_file(
    clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean.write_text("[worker]\nclaim_s = 30\n[drivers]\nthreads_per_host = 2\n")
    monkeypatch.setenv("RACKFLOW_WORKER__LOOK_S", "1.5")
    found = load()
    assert (found.worker.claim_s, found.worker.look_s, found.drivers.threads_per_host) == (30, 1.5, 2)


def test_the_domain_type_has_a_short_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACKFLOW_DOMAIN_TYPE", "qemu")
    assert load().drivers.domain_type == "qemu"


def test_an_unknown_key_in_the_file_is_named(clean: Path) -> None:
    clean.write_text("api_prot = 1\n")
    with pytest.raises(Invalid, match="api_prot"):
        load()


def test_a_file_that_is_no_toml_is_refused(clean: Path) -> None:
    clean.write_text("api_port = = 1\n")
    with pytest.raises(Invalid, match="cannot be read"):
        load()


@pytest.mark.parametrize(("name", "value"), [("API_PORT", "many"), ("RECONCILE_EVERY_S", "1"), ("DOMAIN_TYPE", "xen")])
def test_a_wrong_value_is_refused_with_its_name(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"RACKFLOW_{name}", value)
    with pytest.raises(Invalid, match=name.lower()):
        load()


def test_a_run_folder_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="too long"):
        load({"run_dir": tmp_path / ("x" * 80)})


def test_children_load_the_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wanted = load({"data_dir": tmp_path / "d", "run_dir": Path("/tmp/r"), "api_port": 1234, "database_url": "postgresql://u:p@h/d"})
    wanted = dataclasses.replace(wanted, worker=dataclasses.replace(wanted.worker, stop_s=3.5))
    for name, value in to_environment(wanted).items():
        monkeypatch.setenv(name, value)
    assert load() == wanted


def test_children_do_not_inherit_the_callers_prefect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "https://elsewhere.example/api")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    found = child_environment(load({"data_dir": tmp_path}))
    assert "PREFECT_API_URL" not in found
    assert found["HTTPS_PROXY"] == "http://proxy.example"
