"""Log files: rotated, shown, followed."""

from __future__ import annotations

import logging
from io import StringIO
from pathlib import Path

import pytest

from core.errors import NotFound
from core.settings import Paths
from daemon import logs


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "logs").mkdir()
    return Paths(tmp_path, tmp_path)


def test_a_large_file_is_moved_on_and_the_oldest_forgotten(paths: Paths) -> None:
    file = logs.folder(paths) / "api.log"
    for number in range(6):
        file.write_text(f"{number}" * 20)
        assert logs.rotate([file], largest_bytes=10, kept=3) == [file]
    assert file.read_text() == ""
    assert [file.with_name(f"api.log.{n}").read_text()[0] for n in (1, 2, 3)] == ["5", "4", "3"]
    assert not file.with_name("api.log.4").exists()


def test_a_small_or_missing_file_stays(paths: Paths) -> None:
    file = logs.folder(paths) / "api.log"
    file.write_text("short")
    assert logs.rotate([file, file.with_name("none.log")], largest_bytes=10) == []


def test_all_logs_are_shown_with_the_name_of_their_process(paths: Paths) -> None:
    (logs.folder(paths) / "api.log").write_text("a1\na2\na3\n")
    (logs.folder(paths) / "worker.log").write_text("w1\n")
    lines: list[str] = []
    logs.show(paths, None, lines=2, follow=False, write=lines.append)
    assert lines == ["api    | a2", "api    | a3", "worker | w1"]


def test_an_unknown_process_is_answered_with_the_known_ones(paths: Paths) -> None:
    (logs.folder(paths) / "api.log").write_text("")
    with pytest.raises(NotFound, match="one of: api"):
        logs.show(paths, "apy", lines=2, follow=False, write=print)


@pytest.mark.parametrize("name", logs.RUNS)
def test_a_run_that_fails_for_a_known_reason_says_it_in_a_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect logs each exception with its traceback, here and in its UI."""
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    logs.configure()
    seen = StringIO()
    handler, runs = logging.StreamHandler(seen), logging.getLogger(name)
    runs.addHandler(handler)
    try:
        for error in (NotFound("there is no 100% image", fix="import it"), ZeroDivisionError("division by zero")):
            try:
                raise error
            except Exception as caught:
                runs.exception("Encountered exception during execution: %r", caught)
    finally:
        runs.removeHandler(handler)
    told, *traceback = seen.getvalue().splitlines()
    assert told == "there is no 100% image (import it)"
    assert traceback[0] == "Encountered exception during execution: ZeroDivisionError('division by zero')"
    assert traceback[1].startswith("Traceback")
