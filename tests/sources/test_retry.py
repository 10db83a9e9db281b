"""Pauses between attempts, by hand."""

from __future__ import annotations

import pytest

from smgeo.sources.retry import Backoff


@pytest.mark.parametrize("least", [0.0, 0.5, 1.0])
def test_pauses_double_up_to_the_longest(least):
    waits: list[float] = []
    assert list(Backoff(6, first_s=0.2, longest_s=1.0, least=least).attempts(waits.append)) == [1, 2, 3, 4, 5, 6]
    for wait, longest in zip(waits, [0.2, 0.4, 0.8, 1.0, 1.0], strict=True):
        assert least * longest <= wait <= longest


def test_one_try_does_not_wait():
    assert list(Backoff(1, 1.0, 1.0).attempts(lambda s: pytest.fail("waited"))) == [1]


def test_who_stops_does_not_wait():
    waits: list[float] = []
    for number in Backoff(9, 1.0, 1.0).attempts(waits.append):
        if number == 2:
            break
    assert len(waits) == 1
