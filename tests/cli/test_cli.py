"""Bad input on the real command line: one paragraph on stderr, no traceback, nothing written."""

from __future__ import annotations

import copy
import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from rasterio.transform import from_origin

from smgeo import cli

STATIONS = 10
ROOT = Path(cli.__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    """A small study that would run: ten stations in a table, precipitation as rasters."""
    rows = ["id,day,lat,lon,depth,vw"]
    for i in range(STATIONS):
        rows += [f"s{i},2020-01-{d:02d},0.{i}5,0.05,0.05,0.{d:02d}" for d in range(1, 11)]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    for d in range(1, 11):
        write_raster(tmp_path / f"p_202001{d:02d}.tif")
    return tmp_path


def write_raster(path, crs="EPSG:4326", units=None):
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=10,
        width=10,
        count=1,
        dtype="float32",
        crs=crs,
        transform=from_origin(0, 1, 0.1, 0.1),
    ) as dst:
        dst.write(np.linspace(1, 2, 100, dtype="float32").reshape(10, 10), 1)
        if units:
            dst.set_band_unit(1, units)


RECIPE = {
    "name": "bad",
    "target": {"variable": "sm", "depth_m": [0.0, 0.1]},
    "stations": [
        {
            "kind": "csv",
            "path": "t.csv",
            "columns": {
                "station": "id",
                "time": "day",
                "latitude": "lat",
                "longitude": "lon",
                "depth": "depth",
                "sm": "vw",
            },
        }
    ],
    "rasters": [{"kind": "geotiff", "path": "p_*.tif", "dates": "p_%Y%m%d.tif", "bands": {"precipitation": 1}}],
    "grid": {"crs": "EPSG:4326", "resolution": 0.1, "bounds": [0, 0, 1, 1]},
    "features": ["precipitation", "doy_sin"],
    "prepare": {
        "fill": None,
        "split": {"fractions": [0.6, 0.2, 0.2], "extremes_to_train": False},
        "window": {"length": 1},
    },
    "models": {"rf": {"trees": 2}},
    "maps": {"dates": ["2020-01-05"]},
}


def call(monkeypatch, capsys, *arguments):
    """Exit code, stdout, stderr of `smgeo ARGUMENTS`, in this process."""
    monkeypatch.setattr(sys, "argv", ["smgeo", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
        raise SystemExit(0)
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


def with_values(changes) -> dict:
    values = copy.deepcopy(RECIPE)
    for place, value in changes.items():
        *parents, last = place.split(".")
        part = values
        for key in parents:
            part = part[int(key)] if isinstance(part, list) else part[key]
        if value is None:
            del part[last]
        else:
            part[last] = value
    return values


def refused(folder, monkeypatch, capsys, changes=None, *, data=None, recipe=None) -> str:
    """The paragraph on stderr, after checking that it is one and that nothing was written."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(with_values(changes or {}), sort_keys=False))
    before = sorted(p.name for p in folder.rglob("*"))
    out = folder / "out"
    code, _, err = call(monkeypatch, capsys, "run", recipe or path, "--out", out, "--data", data or folder)
    assert code not in (0, None)
    assert "Traceback" not in err
    assert err.startswith("smgeo: ")
    assert len([line for line in err.split("\n") if line.strip()]) == 1
    assert not out.exists()
    assert sorted(p.name for p in folder.rglob("*")) == before
    return err


def test_the_recipe_that_the_others_spoil_runs(folder, monkeypatch, capsys):
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    code, out, _ = call(monkeypatch, capsys, "run", folder / "recipe.yaml", "--out", folder / "out", "--data", folder)
    assert code == 0
    assert "rf" in out
    assert (folder / "out" / "report.html").is_file()
    assert (folder / "out" / "maps" / "rf" / "sm_2020-01-05.tif").is_file()


def test_verify_names_a_flipped_byte_and_the_next_run_mends_it(folder, monkeypatch, capsys):
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    command = ("run", folder / "recipe.yaml", "--out", folder / "out", "--data", folder)
    assert call(monkeypatch, capsys, *command)[0] == 0
    code, out, _ = call(monkeypatch, capsys, "info", "--verify", folder / "out")
    assert code == 0
    assert "grid.zarr: 2 regions, none damaged" in out
    shard = folder / "out" / "grid.zarr" / "precipitation" / "c" / "0" / "0" / "0"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:20] + bytes([whole[20] ^ 1]) + whole[21:])
    code, out, err = call(monkeypatch, capsys, "info", "--verify", folder / "out" / "grid.zarr")
    assert code != 0
    assert "time.y.x/0.0.0: precipitation/c/0/0/0" in out
    assert "they alone are written again" in err
    shard.unlink()
    assert call(monkeypatch, capsys, *command)[0] == 0
    assert shard.read_bytes() == whole


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prepare.window.lenght": 3}, ["prepare.window", "did you mean 'length'?"]),
        ({"modles": {}}, ["did you mean 'models'?"]),
        ({"features": ["precipitation", "clay"]}, ["'clay'", "no source gives it"]),
        ({"target.depth_m": [1.0, 2.0]}, ["0.05 m", "depth_m"]),
        ({"stations.0.path": "gone.csv"}, ["gone.csv", "not found"]),
        ({"rasters.0.path": "gone_*.tif"}, ["gone_*.tif"]),
        ({"stations.0.columns.sm": {"column": "vw", "units": "percent"}}, ["'percent'", "'m3 m-3'"]),
        ({"prepare.split.fractions": [0.98, 0.01, 0.01]}, ["validation", "none"]),
        ({"models": {"rf": {"tres": 2}}}, ["models.rf", "trees"]),
        ({"models": {"rff": {}}}, ["rff", "rf"]),
        ({"maps.dates": ["2031-01-05"]}, ["2031-01-05"]),
        ({"grid.crs": "EPSG:99999999"}, ["99999999"]),
        ({"grid": {"like": "gone.tif"}}, ["gone.tif"]),
        ({"grid": {"like": "t.csv"}}, ["t.csv"]),
        ({"cross_validation": [{"folds": 50}]}, ["50"]),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_bad_recipe(folder, monkeypatch, capsys, changes, words):
    message = refused(folder, monkeypatch, capsys, changes)
    for word in words:
        assert word in message


def test_grid_without_crs(folder, monkeypatch, capsys):
    write_raster(folder / "grid.tif", crs=None)
    assert "has no CRS" in refused(folder, monkeypatch, capsys, {"grid": {"like": "grid.tif"}})


def test_raster_without_crs(folder, monkeypatch, capsys):
    write_raster(folder / "p_20200111.tif", crs=None)
    message = refused(folder, monkeypatch, capsys)
    assert "p_20200111.tif has no CRS" in message


def test_units_in_a_file_that_do_not_match(folder, monkeypatch, capsys):
    for file in folder.glob("p_*.tif"):
        write_raster(file, units="m s-1")
    message = refused(folder, monkeypatch, capsys)
    assert "'m s-1'" in message
    assert "'mm d-1'" in message


def test_units_in_one_later_file_that_do_not_match(folder, monkeypatch, capsys):
    write_raster(folder / "p_20200104.tif", units="m s-1")
    assert "p_20200104.tif" in refused(folder, monkeypatch, capsys)


def test_zip_member_outside(folder, monkeypatch, capsys):
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("../evil.stm", "x")
    source = [{"kind": "ismn", "path": "a.zip"}]
    assert "outside" in refused(folder, monkeypatch, capsys, {"stations": source})
    assert not (folder.parent / "evil.stm").exists()


def test_data_folder_that_is_missing(folder, monkeypatch, capsys):
    assert "nowhere" in refused(folder, monkeypatch, capsys, data=folder / "nowhere")


def test_recipe_that_is_missing(folder, monkeypatch, capsys):
    message = refused(folder, monkeypatch, capsys, recipe=folder / "gone.yaml")
    assert "gone.yaml" in message
    assert "quickstart" in message


def test_world_with_too_few_stations_for_its_parts(folder, monkeypatch, capsys):
    values = yaml.safe_load((Path(__file__).parents[2] / "recipes" / "quickstart.yaml").read_text())
    values["world"] = {"stations": 3, "days": 40, "shape": [16, 16], "seed": 0}
    (folder / "small.yaml").write_text(yaml.safe_dump(values))
    assert "none" in refused(folder, monkeypatch, capsys, recipe=folder / "small.yaml")


@pytest.mark.parametrize(
    "command", [["info"], ["report"], ["predict", "MODEL", "CUBE"], ["evaluate", "MODEL", "CUBE", "--run"]]
)
def test_path_that_holds_nothing(tmp_path, monkeypatch, capsys, command):
    arguments = [str(tmp_path / w) if w.isupper() else w for w in command]
    code, _, err = call(monkeypatch, capsys, *arguments, tmp_path / "gone")
    assert code != 0
    assert "Traceback" not in err
    # A line of progress may come first.
    assert err.splitlines()[-1].startswith("smgeo: ")
    assert list(tmp_path.iterdir()) == []


def test_simulate_into_a_folder_that_holds_something(tmp_path, monkeypatch, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    arguments = ["--stations", "16", "--days", "30", "--height", "16", "--width", "16"]
    code, _, err = call(monkeypatch, capsys, "simulate", tmp_path, *arguments)
    assert code != 0
    assert str(tmp_path) in err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_path_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    code, _, err = call(monkeypatch, capsys, "simulate", tmp_path / "thesis.txt" / "world", "--stations", "16")
    assert code == 1
    assert err.splitlines()[-1].startswith("smgeo: ")
    assert "Not a directory" in err
    assert "Traceback" not in err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_features_lists_every_one_with_its_unit(monkeypatch, capfd):
    done = subprocess.run([sys.executable, "-m", "smgeo", "features"], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert any("s1_vv" in line and "dB" in line for line in lines)
    assert any("sm" in line and "m3 m-3" in line for line in lines)


def test_features_says_where_each_is_kept():
    done = subprocess.run(
        [sys.executable, "-m", "smgeo", "features"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    lines = done.stdout.splitlines()
    assert any("s1_vv" in line and "COPERNICUS/S1_GRD" in line for line in lines)
    assert any("elevation" in line and "COPERNICUS/DEM/GLO30" in line for line in lines)
    assert any("s2_b8" in line and "sentinel-2-l2a" in line and "B08, nir" in line for line in lines)
    assert any("precipitation" in line and "GPM IMERG final daily" in line for line in lines)


def test_installed_command_refuses_alike_and_debug_shows_the_traceback(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "SMGEO_DATA"}
    command = [sys.executable, "-m", "smgeo"]
    plain = subprocess.run(
        [*command, "run", "gone.yaml"], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert plain.returncode == 1
    assert plain.stdout == ""
    assert plain.stderr.startswith("smgeo: recipe 'gone.yaml' not found")
    assert plain.stderr.count("\n") == 1
    debug = subprocess.run(
        [*command, "--debug", "run", "gone.yaml"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert debug.returncode != 0
    assert "Traceback" in debug.stderr
    assert list(tmp_path.iterdir()) == []


def test_interrupted_run_says_how_to_go_on(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "smgeo", "run", "quickstart", "--out", str(tmp_path / "run")],
        stderr=subprocess.PIPE,
        text=True,
        # Jobs in the background of a script are started deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    assert re.match(r"\d\d:\d\d:\d\d world", first)
    process.send_signal(signal.SIGINT)
    rest = process.communicate()[1]
    assert process.returncode == 130
    assert "the same command again continues" in rest
    assert "Traceback" not in rest
    assert not (tmp_path / "run" / "world").exists()


def test_control_characters_of_data_do_not_reach_the_terminal(capsys, monkeypatch, tmp_path):
    """A terminal obeys them: they change its title, or write to its clipboard."""
    from rich.table import Table

    from smgeo.cli.console import console
    from smgeo.models import make_model

    hostile = "a\x1b]52;c;aWQ=\x07b\x9b31m"
    table = Table("name")
    table.add_row(hostile)
    console.print(hostile, markup=False)
    console.print(table)
    folder = make_model("Ridge").fit([[0.0], [1.0]], [0.0, 1.0]).save(tmp_path / hostile)
    monkeypatch.setattr(sys, "argv", ["smgeo", "info", str(folder.with_name(hostile + "x"))])
    with pytest.raises(SystemExit):
        cli.main()
    out, err = capsys.readouterr()
    assert "a\\x1b]52;c;aWQ=b\\x9b31m" in out  # Rich itself leaves out the bell
    assert not {"\x1b", "\x07", "\x9b"} & set(out + err)


INTERRUPTING = """
import sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "{}":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
"""


@pytest.mark.parametrize("module", ["xarray", "smgeo.cli.hpc"])
@pytest.mark.parametrize("command", [["-m", "smgeo"], [str(Path(sys.executable).with_name("smgeo"))]])
def test_ctrl_c_while_the_command_line_is_imported_is_a_sentence(module, command, tmp_path):
    """The import takes a second, in which no handler of ours is there yet."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTING.format(module))
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run([sys.executable, *command, "--version"], capture_output=True, text=True, env=env)
    assert done.returncode == 130
    assert done.stderr == "smgeo: interrupted before it began; nothing was done\n"


def test_a_script_that_is_interrupted_sees_it(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTING.format("xarray"))
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "__init__.py").write_text("import smgeo")
    (tmp_path / "other" / "__main__.py").touch()
    for command in (["-c", "import smgeo"], ["-m", "other", "smgeo"]):
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=env)
        assert done.returncode == -signal.SIGINT
        assert done.stderr.endswith("\nKeyboardInterrupt\n")
