"""Tests, by what they need: see tests/stages.py. Failed asserts of the shipped cases say what they saw, as here."""

import pytest

pytest.register_assert_rewrite("drivers.conformance")
