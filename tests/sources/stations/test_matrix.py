"""Matrices of cells by days: by hand, and the SMAP database of the hydroDL tutorial against plain pandas."""

from __future__ import annotations

import json

import dask
import numpy as np
import pandas as pd
import pytest

from smgeo.assemble.stations import merge_stations
from smgeo.catalog import FEATURES, Feature
from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.recipe.stations import MatrixSource
from smgeo.sources import open_stations
from smgeo.sources.stations.matrix import open_matrix


def forbid(*args, **kwargs):
    raise AssertionError("computed, where nothing must be")


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path):
    """Three cells; the year 2015 of three days, 2016 of two that follow after a gap of one day."""
    write(tmp_path / "crd.csv", [[45.0, -100.0], [46.0, -101.0], [47.0, -102.0]])
    write(tmp_path / "2015" / "timeStr.csv", [["2015-04-01"], ["2015-04-02"], ["2015-04-03"]])
    write(tmp_path / "2016" / "timeStr.csv", [["2015-04-05"], ["2015-04-06"]])
    write(tmp_path / "2015" / "SMAP.csv", [[0.1, -9999, 0.3], [0.2, 0.2, 0.2], [-9999, -9999, 0.4]])
    write(tmp_path / "2016" / "SMAP.csv", [[0.5, 0.6], [0.2, 7.0], [-9999, 0.4]])
    write(tmp_path / "2015" / "TMP.csv", [[273.15, 274.15, -9999], [280.15, 281.15, 282.15], [290.15, 290.15, 290.15]])
    write(tmp_path / "2016" / "TMP.csv", [[275.15, 276.15], [280.15, 281.15], [290.15, 290.15]])
    write(tmp_path / "const" / "Clay.csv", [[11.5], [-9999], [30.0]])
    return tmp_path


VARIABLES = {"sm": "SMAP", "temperature": {"file": "TMP", "offset": -273.15}}


def test_values_by_hand(folder):
    ds = open_stations(folder, kind="matrix", variables=VARIABLES, static={"clay": "Clay"}, network="SMAP")
    assert ds["station"].values.tolist() == ["SMAP/cell_0001", "SMAP/cell_0002", "SMAP/cell_0003"]
    assert [str(t)[:10] for t in ds["time"].values[[0, -1]]] == ["2015-04-01", "2015-04-06"]
    nan = np.nan
    np.testing.assert_allclose(
        ds["sm"].values,
        [[0.1, nan, 0.3, nan, 0.5, 0.6], [0.2, 0.2, 0.2, nan, 0.2, nan], [nan, nan, 0.4, nan, nan, 0.4]],
        rtol=1e-6,
    )
    np.testing.assert_allclose(ds["temperature"].values[0], [0, 1, nan, nan, 2, 3], atol=1e-4)
    np.testing.assert_allclose(ds["clay"].values, [11.5, nan, 30.0])
    assert {ds[n].dtype.name for n in ("sm", "temperature", "clay")} == {"float32"}
    assert ds["sm"].dims == ("station", "time")
    assert ds["latitude"].values.tolist() == [45.0, 46.0, 47.0]
    assert ds["longitude"].values.tolist() == [-100.0, -101.0, -102.0]
    assert ds["days_read"].values.tolist() == [6, 6, 6]
    assert ds["days_missing"].values.tolist() == [2, 1, 4]
    assert ds["days_outside"].values.tolist() == [0, 1, 0]
    assert (ds["sm"].attrs["units"], ds["sm"].attrs["kind"], ds["clay"].attrs["kind"]) == ("m3 m-3", "target", "static")


@pytest.mark.parametrize("cells_per_task", [1, 2, 3, 100])
def test_blocks_of_cells_change_nothing(folder, cells_per_task):
    whole = open_stations(folder, "matrix", variables=VARIABLES)
    ds = open_matrix(MatrixSource(kind="matrix", path=folder, variables=VARIABLES), cells_per_task=cells_per_task)
    for name in ("sm", "temperature", "days_missing"):
        np.testing.assert_array_equal(ds[name].values, whole[name].values)
    assert sum(ds["sm"].chunks[0]) == 3
    assert max(ds["sm"].chunks[0]) <= cells_per_task


@pytest.mark.parametrize(
    ("period", "expected"),
    [
        (("2015-04-02", "2015-04-05"), [np.nan, 0.3, np.nan, 0.5]),
        (("2015-03-31", "2015-04-01"), [np.nan, 0.1]),
        (("2015-04-06", "2015-04-07"), [0.6, np.nan]),
    ],
)
def test_period_gives_all_its_days(folder, period, expected):
    ds = open_stations(folder, "matrix", period=period, variables=VARIABLES)
    np.testing.assert_allclose(ds["sm"].values[0], expected, rtol=1e-6)


def test_years_and_matlabs_day_numbers(folder):
    (folder / "2016" / "timeStr.csv").unlink()
    # 736059 is 2015-04-05, by hydroDL's own tables (736055 and 2015-04-01 on the first line of 2015).
    write(folder / "2016" / "time.csv", [[736059], [736060]])
    ds = open_stations(folder, "matrix", variables=VARIABLES, years=[2016])
    assert [str(t)[:10] for t in ds["time"].values] == ["2015-04-05", "2015-04-06"]
    with pytest.raises(SmgeoError, match=r"no folder '2014'.*did you mean '2015'|no folder '2014'.*2016"):
        open_stations(folder, "matrix", variables=VARIABLES, years=[2014])


def test_file_missing_in_one_year_is_named_and_its_days_are_missing(folder):
    (folder / "2016" / "SMAP.csv").unlink()
    with pytest.warns(SmgeoWarning, match=r"1 file\(s\) are missing.*2016/SMAP\.csv"):
        ds = open_stations(folder, "matrix", variables=VARIABLES)
    assert list(json.loads(ds.attrs["left_out"])) == ["2016/SMAP.csv"]
    np.testing.assert_allclose(ds["sm"].values[1], [0.2, 0.2, 0.2, np.nan, np.nan, np.nan], rtol=1e-6)
    # Not asked for, not missed.
    open_stations(folder, "matrix", variables=VARIABLES, years=[2015])
    with pytest.raises(SmgeoError, match=r"SMOP\.csv not found; did you mean 'SMAP'"):
        open_stations(folder, "matrix", variables={"sm": "SMOP"}, years=[2015])


def test_own_variable_of_a_recipe(folder):
    wind = Feature("wind", "wind", "m s-1", "dynamic", "NLDAS", (200.0, 400.0), 1.0)
    with pytest.raises(SmgeoError, match="unknown variable 'wind'.*describe it in variables"):
        open_stations(folder, "matrix", variables={**VARIABLES, "wind": "TMP"})
    ds = open_stations(folder, "matrix", variables={**VARIABLES, "wind": "TMP"}, catalog={**FEATURES, "wind": wind})
    assert ds["wind"].attrs["units"] == "m s-1"


def compute(folder, **options):
    return open_stations(folder, "matrix", **{"variables": VARIABLES, **options}).compute(scheduler="synchronous")


def test_matrix_of_another_shape_or_unit_and_a_broken_word_are_refused_with_their_place(folder):
    with pytest.raises(SmgeoError, match=r"TMP\.csv: half of the values of temperature are beyond .*scale and offset"):
        open_stations(folder, "matrix", variables={"sm": "SMAP", "temperature": "TMP"})
    write(folder / "2016" / "SMAP.csv", [[0.5, 0.6, 0.7], [0.2, 0.2, 0.2], [0.1, 0.1, 0.1]])
    with pytest.raises(SmgeoError, match=r"2016/SMAP\.csv: 3 rows of 3 columns.*3 cells and 2 days"):
        compute(folder)
    write(folder / "2016" / "SMAP.csv", [[0.5, 0.6], [0.2, 0.2]])
    with pytest.raises(SmgeoError, match=r"2016/SMAP\.csv: 2 rows of 2 columns"):
        compute(folder)
    write(folder / "2016" / "SMAP.csv", [[0.5, 0.6], [0.2, 0.2], [0.3, "x.1"]])
    with pytest.raises(SmgeoError, match=r"2016/SMAP\.csv, line 3: 'x\.1' is not a number"):
        compute(folder)


def test_tables_of_days_that_overlap_or_have_gaps_are_refused(folder):
    write(folder / "2016" / "timeStr.csv", [["2015-04-03"], ["2015-04-04"]])
    with pytest.raises(SmgeoError, match="2015 and 2016 both contain 2015-04-03"):
        open_stations(folder, "matrix", variables=VARIABLES)
    write(folder / "2016" / "timeStr.csv", [["2015-04-05"], ["2015-04-07"]])
    with pytest.raises(SmgeoError, match=r"timeStr\.csv, line 2: 2015-04-05 is followed by 2015-04-07"):
        open_stations(folder, "matrix", variables=VARIABLES)
    write(folder / "2016" / "timeStr.csv", [["2015-04-05"], ["6 April"]])
    with pytest.raises(SmgeoError, match=r"line 2: '6' is not a day|line 2.*is not a day"):
        open_stations(folder, "matrix", variables=VARIABLES)


def test_missing_parts_are_named(folder, tmp_path):
    with pytest.raises(SmgeoError, match="does not name the file of the target 'sm'"):
        open_stations(folder, "matrix", variables={"temperature": "TMP"})
    with pytest.raises(SmgeoError, match=r"unknown key 'scal'; did you mean 'scale'"):
        open_stations(folder, "matrix", variables={"sm": {"file": "SMAP", "scal": 2}})
    with pytest.raises(SmgeoError, match=r"Clai\.csv not found; did you mean 'Clay'"):
        open_stations(folder, "matrix", variables=VARIABLES, static={"clay": "Clai"})
    (folder / "crd.csv").unlink()
    with pytest.raises(SmgeoError, match=r"crd\.csv not found"):
        open_stations(folder, "matrix", variables=VARIABLES)


def test_stations_of_every_kind_fit_into_one_cube(folder, tmp_path):
    (tmp_path / "t.csv").write_text("id,day,lat,lon,vw\na,2015-04-01,50,7,0.15\n")
    columns = {"station": "id", "time": "day", "latitude": "lat", "longitude": "lon", "sm": "vw"}
    stm = tmp_path / "archive" / "N_N_A_sm_0.050000_0.050000_P_20150401_20150401.stm"
    write(stm, [["N N A 45.0 3.0 100.0 0.05 0.05 P"], *[[f"2015/04/01 {h:02d}:00 0.25 G M"] for h in range(24)]])
    cube = merge_stations(
        [
            open_stations(folder, "matrix", variables={"sm": "SMAP"}),
            open_stations(tmp_path / "t.csv", "csv", columns=columns),
            open_stations(tmp_path / "archive"),
        ],
        None,
    )
    assert cube["station"].values.tolist() == [
        "CELLS/cell_0001",
        "CELLS/cell_0002",
        "CELLS/cell_0003",
        "TABLE/a",
        "N/A",
    ]
    np.testing.assert_allclose(cube["sm"].values[:, 0], [0.1, 0.2, np.nan, 0.15, 0.25], rtol=1e-6)
    assert [len(json.loads(str(s))) for s in cube["sensors"].values] == [0, 0, 0, 0, 1]


# ---- the real database

NLDAS = {
    "sm": "SMAP_AM",
    "precipitation": {"file": "APCP_FORA", "scale": 24},
    "temperature": {"file": "TMP_2_FORA", "offset": -273.15},
}


@pytest.fixture(scope="module")
def smap(data):
    return data / "hydrodl_smap" / "CONUSv4f1"


def test_real_cells_are_what_pandas_reads(smap):
    with dask.config.set(scheduler=forbid):
        ds = open_stations(
            smap,
            kind="matrix",
            variables=NLDAS,
            static={"sand": "Sand", "clay": "Clay"},
            years=[2015, 2016],
            network="SMAP",
        )
    tasks = [k for k in ds["sm"].__dask_graph__().to_dict() if "_read_block" in str(k)]
    assert len(tasks) == 2  # one a file
    ds = ds.compute(scheduler="synchronous")
    assert dict(ds.sizes) == {"station": 412, "time": 731}
    assert ds["station"].values[[0, -1]].tolist() == ["SMAP/cell_0001", "SMAP/cell_0412"]
    assert [str(t)[:10] for t in ds["time"].values[[0, -1]]] == ["2015-04-01", "2017-03-31"]
    for name, (file, scale, offset) in {
        "sm": ("SMAP_AM", 1, 0),
        "precipitation": ("APCP_FORA", 24, 0),
        "temperature": ("TMP_2_FORA", 1, -273.15),
    }.items():
        frames = [pd.read_csv(smap / y / f"{file}.csv", header=None).replace(-9999, np.nan) for y in ("2015", "2016")]
        expected = np.hstack([f.to_numpy() for f in frames]) * scale + offset
        np.testing.assert_allclose(ds[name].values, expected, rtol=1e-5, atol=1e-4)
    missing = float(ds["sm"].isnull().mean())
    assert 0.58 < missing < 0.59
    assert int(ds["days_missing"].sum()) == round(missing * 412 * 731)
    assert int(ds["days_outside"].sum()) == 0
    assert int(ds["sand"].isnull().sum()) == 1
    places = pd.read_csv(smap / "crd.csv", header=None)
    np.testing.assert_array_equal(ds["latitude"].values, places[0])
    np.testing.assert_array_equal(ds["longitude"].values, places[1])


def test_real_years_are_all_found_and_the_one_without_a_target_is_named(smap):
    with pytest.warns(SmgeoWarning, match=r"2017/SMAP_AM\.csv"):
        ds = open_stations(smap, "matrix", variables=NLDAS)
    assert ds.sizes["time"] == 1096
    assert str(ds["time"].values[-1])[:10] == "2018-03-31"
