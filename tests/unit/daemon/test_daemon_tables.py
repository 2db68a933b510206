"""The tables of the daemon: verbs and flows, batches, rounds, datagrams, environment."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from control.operations import Operation
from core.settings import Paths, Settings
from core.states import OperationState, Verb
from daemon import notify, prefect_settings
from daemon.dispatcher import backoff_s, round_gap_s
from daemon.flow_table import FLOW_OF, FLOWS, batches, run_name

AT = datetime(2026, 1, 1, tzinfo=UTC)


def operation(verb: Verb, name: str) -> Operation:
    return Operation(
        id=name, request_id="r", verb=verb, subject=f"instance/{name}", subject_name=name, after_id=None, asked_by="a",
        parameters={}, state=OperationState.RUNNING, reason="", error=None, epoch=1, claimed_by="w", flow_run_id=None,
        cancel_requested=False, attempts=1, not_before=None, created_at=AT, started_at=AT, finished_at=None,
    )  # fmt: skip


def test_every_verb_has_a_flow_that_is_deployed() -> None:
    assert set(FLOW_OF) == set(Verb)
    assert set(FLOW_OF.values()) == {entry.name for entry in FLOWS}


def test_entrypoints_are_dotted_and_lead_to_the_flow_of_that_name() -> None:
    for entry in FLOWS:
        assert ":" not in entry.entrypoint
        assert "/" not in entry.entrypoint
        assert entry.entrypoint.rsplit(".", 1)[1] == entry.name


def test_one_batch_per_flow_whatever_the_verbs() -> None:
    found = batches([operation(Verb.IMPORT, "a"), operation(Verb.DEPLOY, "b"), operation(Verb.REMOVE, "c")])
    assert {flow: [op.id for op in ops] for flow, ops in found.items()} == {"stage": ["a", "c"], "deploy": ["b"]}


def test_runs_are_named_after_what_they_do() -> None:
    one, two = operation(Verb.DEPLOY, "web-1"), operation(Verb.DEPLOY, "web-2")
    assert run_name([one]) == "deploy web-1"
    assert run_name([one, two]) == "deploy 2 instances"


def test_one_request_starts_at_once_and_many_runs_are_gathered() -> None:
    gaps = [round_gap_s(runs) for runs in range(20)]
    assert gaps[0] <= 0.1
    assert gaps == sorted(gaps)
    assert gaps[-1] == 2.0


def test_a_dead_server_is_asked_less_and_less_often() -> None:
    assert [backoff_s(n) for n in (1, 2, 3, 9)] == [2, 4, 8, 30]


@pytest.mark.parametrize("message", [b"", b"api READY", b"api x READY", b"api 1 STOP", b"\xff\xfe 1 READY x"])
def test_other_datagrams_mean_nothing(message: bytes) -> None:
    assert notify.parse(message) is None


def test_a_ready_datagram_names_process_and_pid() -> None:
    assert notify.parse(b"api 17 READY") == ("api", 17)


def test_prefect_gets_its_password_by_environment_made_once(tmp_path: Path) -> None:
    settings = Settings(Paths(tmp_path, tmp_path), "sqlite://", prefect_port=4300)
    client = prefect_settings.client_environment(settings)
    server = prefect_settings.server_environment(settings, "postgresql+asyncpg://x")
    secret = (tmp_path / "prefect.password").read_text().strip()
    assert len(secret) >= 24
    assert (tmp_path / "prefect.password").stat().st_mode & 0o777 == 0o600
    assert client["PREFECT_API_AUTH_STRING"] == server["PREFECT_SERVER_API_AUTH_STRING"] == f"admin:{secret}"
    assert server["PREFECT_SERVER_API_HOST"] == "127.0.0.1"
    other = dataclasses.replace(settings, prefect_port=4301)
    assert prefect_settings.client_environment(other)["PREFECT_API_URL"] == "http://127.0.0.1:4301/api"
