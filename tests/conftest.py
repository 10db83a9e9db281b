"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data, $SMGEO_DATA: absent, a user's tests skip and CI fails."""
    given = os.environ.get("SMGEO_DATA")
    if given and Path(given).is_dir():
        return Path(given)
    reason = f"real data not found: SMGEO_DATA is {given!r}; set it to the folder that holds ismn/ and cookfarm/"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
