"""Tests, by what they need: see tests/stages.py. The shipped cases of drivers show what their asserts saw, as these do."""

import pytest

pytest.register_assert_rewrite("drivers.conformance")
