"""Fixtures of tests that try harmed inputs."""

from __future__ import annotations

import pytest

from tests.fuzz.examples import Reader


@pytest.fixture(scope="module")
def reader():
    made = Reader()
    yield made
    made.stop()
