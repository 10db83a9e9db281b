"""The core needs neither the modules that only POSIX systems have nor the packages of any extra."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import smgeo

# psutil and Dask come first: elsewhere they use other modules instead of what they import on Linux.
CODE = """
import sys
import warnings
import dask.base, psutil
class Missing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in {blocked}:
            raise ModuleNotFoundError(name)
for name in {blocked}:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Missing)
import smgeo, smgeo.cli
for name in smgeo.__all__:  # each is imported when it is first used
    getattr(smgeo, name)
import numpy as np, pandas as pd, xarray as xr
random = np.random.default_rng(0)
values = lambda: (("station", "time"), random.random((4, 30)).astype("float32"))
coords = {{
    "station": np.array(list("abcd"), dtype=object),
    "time": pd.date_range("2020-01-01", periods=30),
    "latitude": ("station", np.arange(4.0)),
    "longitude": ("station", np.arange(4.0)),
}}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # filelock warns that it has no fcntl
    smgeo.write_cube(xr.Dataset({{"temperature": values(), "sm": values()}}, coords), {folder!r} + "/cube.zarr")
cube = smgeo.open_cube({folder!r} + "/cube.zarr")
scaled = smgeo.Scaler("minmax").fit(cube, ["temperature"]).transform(cube)
windows = smgeo.Windows(scaled, ["temperature"], length=3)
smgeo.make_model("Ridge").fit(windows).save({folder!r} + "/model")
assert smgeo.load_model({folder!r} + "/model").predict(windows).shape == (len(windows),)
print("works")
"""

POSIX = ("fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty")
EXTRAS = (
    *("aiohttp", "ax", "cryptography", "dask_jobqueue", "ee", "googleapiclient", "httplib2", "ismn", "jax", "keras"),
    *("odc.loader", "odc.stac", "optuna", "pystac", "pystac_client", "ray", "requests", "tensorflow", "torch", "ydf"),
)


@pytest.mark.parametrize("blocked", [POSIX, EXTRAS], ids=["posix", "extras"])
def test_the_core_works_without(blocked, tmp_path):
    code = CODE.format(blocked=blocked, folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "works\n", done.stderr


READ_ONLY = """
from smgeo.models.trees import Trees
from smgeo.terrain import slope_aspect
import numpy as np
print(slope_aspect(np.ones((3, 3)), 1, 1)[0][1, 1])
"""


def test_compiled_code_runs_where_no_cache_can_be_written(tmp_path):
    """The package and the user's home are read-only in a container on a compute node."""
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode
    ):
        pytest.skip("only a user who may mount can make a folder read-only for itself")
    root = Path(smgeo.__file__).parents[1]
    (tmp_path / "code.py").write_text(READ_ONLY)
    script = (
        f"mount --bind {root} {root} && mount -o remount,ro,bind {root} && exec {sys.executable} {tmp_path}/code.py"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR")}
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script],
        cwd=tmp_path,
        env={**environment, "HOME": "/proc/none", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0.0"
