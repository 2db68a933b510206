"""Turns at writing: who waited goes before who has just written; who was stopped keeps nobody for ever."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from control import turns
from control.turns import Turns


def test_who_waited_goes_next(tmp_path: Path) -> None:
    greedy, patient = Turns(tmp_path / "db"), Turns(tmp_path / "db")
    order: list[str] = []
    waiting = threading.Event()

    def wait() -> None:
        waiting.set()
        with patient.turn():
            order.append("patient")

    thread = threading.Thread(target=wait)
    with greedy.turn():
        thread.start()
        waiting.wait()
        time.sleep(0.05)
        order.append("greedy")
    for _ in range(3):  # at once again, without a pause
        with greedy.turn():
            order.append("greedy")
    thread.join()
    assert order == ["greedy", "patient", "greedy", "greedy", "greedy"]
    greedy.close()
    patient.close()


def test_who_was_stopped_in_its_turn_keeps_nobody_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "WAIT_S", 0.05)
    stopped, other, third = (Turns(tmp_path / "db") for _ in range(3))
    with stopped.turn():
        for one in (other, third):
            with one.turn():
                pass
    with other.turn():  # and all is as before when it goes on
        assert not third._take(third._now, 0)
    for one in (stopped, other, third):
        one.close()
