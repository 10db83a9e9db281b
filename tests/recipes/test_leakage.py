"""The script of the leakage audit, on every 8th of the SMAP cells and Cook Farm's stations."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

SCRIPT = Path(__file__).parents[2] / "recipes" / "leakage.py"


@pytest.mark.soak
def test_random_rows_flatter_on_real_data(data):
    done = subprocess.run([sys.executable, SCRIPT, data, "8"], capture_output=True, text=True, check=True)
    smap, farm = done.stdout.split("Cook Farm\n")
    for text, stations in ((smap, 52), (farm, 6)):
        assert f"rows at {stations} stations" in text
        r2 = {
            m: float(v)
            for m, v in re.findall(r"^(random|temporal|leave-location-out)(?: +\S+){4} +(\S+)", text, re.M)[:3]
        }
        assert r2["random"] > r2["temporal"]
        assert r2["random"] > r2["leave-location-out"] + 0.2
        assert f"R2 is {r2['random']:.2f} there, but {r2['leave-location-out']:.2f} at locations" in text
    # Rows of every 8th cell with a value of SMAP, as pandas counts them.
    folder = data / "hydrodl_smap" / "CONUSv4f1"
    years = [pd.read_csv(folder / y / "SMAP_AM.csv", header=None).iloc[::8] for y in ("2015", "2016")]
    n = sum(int((table != -9999).to_numpy().sum()) for table in years)
    assert f"{n:,} rows at 52 stations" in smap
    assert re.search(r"^leave-location-out +(\d+\.\d\d) ", smap, re.M) is not None
    assert pytest.approx(0.0) == float(re.findall(r"^random +(\d+\.\d\d) ", smap, re.M)[0])
