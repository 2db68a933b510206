"""From the ledger to flow runs and back, through a real Prefect server; workers that die; a server that goes away."""

from __future__ import annotations

import os
import signal
import statistics
import time
from typing import Any

import pytest

from control import operations, requests
from core.errors import Conflict
from core.states import OperationState, Verb
from tests.prefect.conftest import Bench, daemon, wait_until

pytestmark = pytest.mark.prefect
DONE = OperationState.DONE


def runs(bench: Bench) -> list[dict[str, object]]:
    """Return the flow runs of this test's work pool."""
    wanted = {"work_pools": {"name": {"any_": [bench.settings.work_pool]}}, "limit": 100}
    found: list[dict[str, object]] = bench.prefect("POST", "/flow_runs/filter", wanted)
    return found


def deployment(bench: Bench) -> str:
    return str(bench.prefect("GET", "/deployments/name/stage/stage")["id"])


def create_run(bench: Bench, label: str) -> str:
    """Create a run as Prefect's UI does: scheduled for now, for any worker of the pool."""
    body = {"parameters": {"label": label}, "state": {"type": "SCHEDULED"}}
    return str(bench.prefect("POST", f"/deployments/{deployment(bench)}/create_flow_run", body)["id"])


def test_operations_run_as_one_flow_run_that_prefect_shows(bench: Bench) -> None:
    bench.start_worker()
    ids = bench.submit(5, "a")
    ended = bench.wait_finished(ids)
    assert [op.state for op in ended] == [DONE] * 5
    run_ids = {op.flow_run_id for op in ended}
    assert len(run_ids) == 1
    run = wait_until(lambda: [r for r in runs(bench) if r["state_type"] == "COMPLETED"])[0]
    assert run["id"] == run_ids.pop()
    assert run["name"] == "import 5 images"
    assert run["parameters"]["operations"] == sorted(ids)
    assert run["deployment_id"] == deployment(bench)


def test_a_request_starts_within_half_a_second_and_a_burst_is_gathered(bench: Bench) -> None:
    bench.start_worker()
    bench.wait_finished(bench.submit(1, "warm"))
    waits = []
    for n in range(7):
        begun = time.time()
        ids = bench.submit(1, f"one{n}")
        bench.wait_finished(ids)
        waits.append(bench.trace("step", operation=ids[0], sequence=1)[0]["at"] - begun)
        time.sleep(0.3)
    before = len(runs(bench))
    burst = [one for n in range(30) for one in bench.submit(1, f"burst{n}")]
    bench.wait_finished(burst, 60)
    assert len(runs(bench)) - before <= 12
    print(f"accepted to first step: median {statistics.median(waits):.3f} s of {sorted(round(w, 3) for w in waits)}")
    assert statistics.median(waits) < 1.5  # half a second on a quiet machine, see docs/benchmarks.md


def test_a_run_created_in_prefect_is_found_by_its_event(bench: Bench) -> None:
    bench.start_worker()
    waits = []
    for n in range(5):
        begun = time.time()
        run = create_run(bench, f"ui{n}")
        waits.append(wait_until(lambda n=n: bench.trace("flow", label=f"ui{n}"))[0]["at"] - begun)  # type: ignore[misc]
        wait_until(lambda run=run: bench.prefect("GET", f"/flow_runs/{run}")["state_type"] == "COMPLETED")  # type: ignore[misc]
    print(f"created in Prefect to begun: median {statistics.median(waits):.3f} s")
    assert statistics.median(waits) < 2.0


def test_a_flow_that_fails_is_failed_in_prefect_and_the_worker_goes_on(bench: Bench) -> None:
    worker = bench.start_worker()
    run = create_run(bench, "boom")
    wait_until(lambda: bench.prefect("GET", f"/flow_runs/{run}")["state_type"] == "FAILED")
    assert [op.state for op in bench.wait_finished(bench.submit(1, "after"))] == [DONE]
    assert worker.poll() is None


def test_operations_of_a_flow_that_broke_are_tried_again_later(bench: Bench) -> None:
    bench.start_worker()
    broken = bench.settings.paths.run_dir / "break"
    broken.touch()
    ids = bench.submit(2, "b")
    wait_until(lambda: all(op.state is OperationState.PENDING and op.attempts for op in bench.operations(ids)))
    held_back = bench.operations(ids)
    assert all(op.claimed_by is None and op.not_before and "ended without ending it" in op.reason for op in held_back)
    broken.unlink()
    assert [op.state for op in bench.wait_finished(ids)] == [DONE] * 2


def test_operations_that_are_held_but_not_run_are_given_back(bench: Bench) -> None:
    bench.start_worker()
    worker_id = (bench.settings.paths.run_dir / "worker.id").read_text().strip()
    images = {"images": [{"name": "lost", "kind": "vm", "source": "/nowhere"}]}

    def enter_and_claim(c: Any) -> list[str]:
        accepted = requests.submit(c, bench.admin, Verb.IMPORT, images, source="test")
        return [op.id for op in operations.claim_pending(c, worker_id, only=[op.id for op in accepted.operations])]

    ids = bench.store.write_now(enter_and_claim)
    assert [op.claimed_by for op in bench.operations(ids)] == [worker_id]
    assert [op.state for op in bench.wait_finished(ids)] == [DONE]


def test_a_killed_workers_operations_go_on_where_they_stopped(bench: Bench) -> None:
    first = bench.start_worker()
    hold = bench.hold()
    ids = bench.submit(3, "k")
    wait_until(lambda: all(steps and steps[0].state == "done" for steps in bench.steps(ids).values()))
    wait_until(lambda: all(op.flow_run_id for op in bench.operations(ids)))
    before = bench.operations(ids)
    first.kill()
    first.wait()
    hold.unlink()
    begun = time.monotonic()
    bench.start_worker()
    ended = bench.wait_finished(ids)
    print(f"worker started and operations ended {time.monotonic() - begun:.1f} s after kill -9")
    assert [op.state for op in ended] == [DONE] * 3
    assert all(new.epoch > old.epoch for new, old in zip(ended, before, strict=True))
    assert {op.flow_run_id for op in ended}.isdisjoint({op.flow_run_id for op in before})
    assert {bench.prefect("GET", f"/flow_runs/{op.flow_run_id}")["state_type"] for op in before} == {"CRASHED"}
    # the first step was not done again, the second was done once, by the successor
    assert sorted(x["operation"] for x in bench.trace("step", sequence=1)) == sorted(ids)
    assert {x["pid"] for x in bench.trace("step", sequence=2)} == {bench.processes[-1].pid}


def test_a_worker_that_is_asked_to_end_gives_back_what_it_cannot_finish(bench: Bench) -> None:
    first = bench.start_worker()
    hold = bench.hold()
    ids = bench.submit(2, "s")
    wait_until(lambda: len(bench.trace("step", sequence=1)) == 2)
    begun = time.monotonic()
    first.send_signal(signal.SIGTERM)
    assert first.wait(bench.settings.worker.stop_s + 9) == 0
    assert time.monotonic() - begun >= bench.settings.worker.stop_s  # running flows had their time
    assert {op.claimed_by for op in bench.operations(ids)} == {None}
    assert {r["state_type"] for r in runs(bench)} == {"CRASHED"}
    hold.unlink()
    bench.start_worker()
    assert [op.state for op in bench.wait_finished(ids)] == [DONE] * 2


def test_a_worker_that_is_asked_to_end_lets_short_flows_end(bench: Bench) -> None:
    first = bench.start_worker()
    hold = bench.hold()
    ids = bench.submit(1, "e")
    wait_until(lambda: bench.trace("step", sequence=1))
    first.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    hold.unlink()
    assert first.wait(15) == 0
    assert [op.state for op in bench.operations(ids)] == [DONE]
    assert {r["state_type"] for r in runs(bench)} == {"COMPLETED"}


def test_a_worker_of_which_a_part_broke_ends_and_its_successor_goes_on(bench: Bench) -> None:
    first = bench.start_worker()
    hold, told = bench.hold(), bench.settings.paths.run_dir / "break-part"
    ids = bench.submit(1, "p")
    wait_until(lambda: bench.trace("step", sequence=1))
    told.touch()
    assert first.wait(bench.settings.worker.stop_s + 9) == 1
    log = (bench.settings.paths.data_dir / "worker.log").read_text()
    assert "KeyError: 'told to break'" in log
    assert "the timetable is over: the worker ends, to be started anew" in log
    hold.unlink()
    told.unlink()
    bench.start_worker()
    assert [op.state for op in bench.wait_finished(ids)] == [DONE]


def test_only_one_worker_takes_over_a_front_ends_claim(bench: Bench) -> None:
    bench.start_worker()
    with pytest.raises(AssertionError, match=Conflict.__name__):
        bench.start_worker()


def test_a_run_cancelled_in_prefect_cancels_its_operations(bench: Bench) -> None:
    bench.start_worker()
    hold = bench.hold()
    ids = bench.submit(2, "c")
    wait_until(lambda: all(op.flow_run_id for op in bench.operations(ids)))
    run = bench.operations(ids)[0].flow_run_id
    bench.prefect("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    assert [op.state for op in bench.wait_finished(ids)] == [OperationState.CANCELLED] * 2
    wait_until(lambda: bench.prefect("GET", f"/flow_runs/{run}")["state_type"] not in ("CANCELLING", "RUNNING"))
    assert bench.prefect("GET", f"/flow_runs/{run}")["state_type"] == "CANCELLED"
    hold.unlink()


def test_prefect_may_go_away_in_the_middle(bench: Bench) -> None:
    """The server is killed while a flow runs; new work waits for it; everything ends after its return."""
    worker = bench.start_worker()
    hold = bench.hold()
    under_way = bench.submit(2, "p")
    wait_until(lambda: len(bench.trace("step", sequence=1)) == 2)
    run_dir = bench.settings.paths.run_dir.parent / "run"
    server = int((run_dir / "prefect.pid").read_text())
    os.kill(server, signal.SIGKILL)
    later = bench.submit(2, "q")
    hold.unlink()
    # the ledger needs no server: what was under way ends
    assert [op.state for op in bench.wait_finished(under_way)] == [DONE] * 2
    pid_file = run_dir / "prefect.pid"
    wait_until(lambda: pid_file.exists() and pid_file.read_text() != f"{server}\n", 40)
    assert [op.state for op in bench.wait_finished(later, 90)] == [DONE] * 2
    assert worker.poll() is None
    assert daemon_is_up(bench)


def daemon_is_up(bench: Bench) -> bool:
    """Say whether the supervisor reports everything as ready again."""
    import dataclasses

    base = bench.settings.paths.run_dir.parent
    paths = dataclasses.replace(bench.settings.paths, data_dir=base / "data", run_dir=base / "run")
    settings = dataclasses.replace(bench.settings, paths=paths)
    return bool(wait_until(lambda: daemon(settings, "status").returncode == 0, 40))
