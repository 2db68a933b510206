"""How the live pairs clean up behind them, without the hosts."""

from __future__ import annotations

import io
import urllib.error
from dataclasses import dataclass
from email.message import Message
from typing import Any, cast

import pytest

from bench.cloud import Cloud
from core.states import OperationState
from tests.chaos.live import pairs

BUSY = b"the image is being saved"  # what is said with 409


@dataclass
class OneImage:
    """A front-end with one image. answers: what its deletions meet, one after the other; the last one for ever."""

    answers: list[OperationState | bytes]
    asked: int = 0
    there: bool = True

    def call(self, method: str, path: str) -> Any:
        if method == "GET":
            assert path == "/v1/images?name=golden"
            return [{"name": "golden"}] if self.there else []
        assert (method, path) == ("DELETE", "/v1/images/golden")
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(answer, bytes):
            raise urllib.error.HTTPError(path, 409, "Conflict", Message(), io.BytesIO(answer))
        self.there = answer is not OperationState.DONE
        return {"operations": [{"id": answer}]}

    def wait(self, operations: list[str], *, timeout_s: float) -> list[dict[str, Any]]:
        return [{"state": one, "error": {"message": "a host is silent"}} for one in operations]


@pytest.mark.parametrize("first", [[], [BUSY], [OperationState.FAILED, BUSY]])
def test_an_image_is_asked_for_to_go_until_it_is_gone(first: list[Any]) -> None:
    cloud = OneImage([*first, OperationState.DONE])
    assert pairs.drop_image(cast(Cloud, cloud), "golden", within_s=10) == []
    assert not cloud.there
    assert cloud.asked == len(first) + 1


@pytest.mark.parametrize(
    ("answer", "why"), [(BUSY, BUSY.decode()), (OperationState.FAILED, "a host is silent")]
)
def test_an_image_that_stays_is_told(answer: Any, why: str) -> None:
    (told,) = pairs.drop_image(cast(Cloud, OneImage([answer])), "golden", within_s=0.5)
    assert why in told


def test_an_image_that_was_not_made_is_not_asked_for() -> None:
    cloud = OneImage([BUSY], there=False)
    assert pairs.drop_image(cast(Cloud, cloud), "golden", within_s=1) == []
    assert cloud.asked == 0
