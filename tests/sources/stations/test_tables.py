"""Tables of stations: layouts, depths, places, and what is refused."""

from __future__ import annotations

import gzip
import json

import dask
import numpy as np
import pandas as pd
import pytest
from pyproj import Transformer

from smgeo.catalog import FEATURES, Feature
from smgeo.errors import SmgeoError
from smgeo.recipe.study import read_recipe
from smgeo.sources import open_stations

COLUMNS = {"station": "id", "time": "day", "latitude": "lat", "longitude": "lon", "sm": "vw"}

LONG = """id,day,lat,lon,vw,clay
a,2020-01-01,50.5,7.25,0.1,20
a,2020-01-02,50.5,7.25,0.2,20
b,2020-01-01,51.0,8.0,0.3,30
b,2020-01-03,51.0,8.0,0.5,30
"""


def write(folder, text, name="t.csv"):
    path = folder / name
    path.write_text(text)
    return path


def refusal(path, **options) -> str:
    with pytest.raises(SmgeoError) as error:
        open_stations(path, "csv", **{"columns": COLUMNS, **options}).load()
    return str(error.value)


def check_long(ds):
    assert ds["station"].values.tolist() == ["TABLE/a", "TABLE/b"]
    assert [str(t)[:10] for t in ds["time"].values] == ["2020-01-01", "2020-01-02", "2020-01-03"]
    assert ds["sm"].dims == ("station", "time")
    assert ds["sm"].dtype == "float32"
    np.testing.assert_allclose(ds["sm"].values, [[0.1, 0.2, np.nan], [0.3, np.nan, 0.5]], rtol=1e-6)
    assert ds["latitude"].values.tolist() == [50.5, 51.0]
    assert ds["longitude"].values.tolist() == [7.25, 8.0]


def test_long_table(tmp_path):
    ds = open_stations(write(tmp_path, LONG), "csv", columns={**COLUMNS, "clay": "clay"})
    check_long(ds)
    assert ds["clay"].dims == ("station",)
    assert ds["clay"].values.tolist() == [20.0, 30.0]
    assert ds["clay"].attrs["units"] == "percent"
    assert ds["rows_read"].values.tolist() == [2, 2]


def test_gz_table(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(LONG.encode()))
    check_long(open_stations(path, "csv", columns=COLUMNS))


def test_wide_table(tmp_path):
    write(tmp_path, "station,latitude,longitude\na,50.5,7.25\nb,51.0,8.0\n", "places.csv")
    path = write(tmp_path, "day,a,b\n2020-01-01,10,30\n2020-01-02,20,\n2020-01-03,,50\n")
    columns = {"time": "day", "sm": {"column": "-", "scale": 0.01}}
    check_long(open_stations(path, "csv", columns=columns, layout="wide", stations=tmp_path / "places.csv"))


def test_wide_table_without_the_column_of_a_station_names_the_nearest(tmp_path):
    write(tmp_path, "station,latitude,longitude\nnorth,50.5,7.25\n", "places.csv")
    path = write(tmp_path, "day,nort\n2020-01-01,0.1\n")
    message = refusal(path, columns={"time": "day"}, layout="wide", stations=tmp_path / "places.csv")
    assert "'north'" in message
    assert "did you mean 'nort'?" in message


def test_places_in_a_second_table(tmp_path):
    write(tmp_path, "station,latitude,longitude\na,50.5,7.25\nb,51.0,8.0\n", "places.csv")
    text = "\n".join(",".join((f := line.split(","))[:2] + f[4:5]) for line in LONG.splitlines())
    columns = {"station": "id", "time": "day", "sm": "vw"}
    check_long(open_stations(write(tmp_path, text), "csv", columns=columns, stations=tmp_path / "places.csv"))


def test_times_without_an_offset_are_local_where_the_user_says_so(tmp_path):
    # In Pullman (UTC-8) 20:00 is the next day in UTC; a time with an offset, and a day without a time, stay.
    rows = ["2020-01-01 20:00,0.1", "2020-01-01T20:00-01:00,0.2", "2020-01-04,0.3", "20200105,0.4"]
    path = write(
        tmp_path, "id,day,lat,lon,vw\n" + "".join(f"a,{r.split(',')[0]},46,-117,{r.split(',')[1]}\n" for r in rows)
    )
    columns = {**COLUMNS}
    local = open_stations(path, "csv", columns=columns, utc_offset_hours=-8)
    np.testing.assert_allclose(local["sm"].values, [[0.2, 0.1, np.nan, 0.3, 0.4]], rtol=1e-6)
    assert [str(t)[:10] for t in local["time"].values[[0, -1]]] == ["2020-01-01", "2020-01-05"]
    utc = open_stations(path, "csv", columns=columns)
    np.testing.assert_allclose(utc["sm"].values, [[0.15, np.nan, np.nan, 0.3, 0.4]], rtol=1e-6)


def test_sensors_of_a_station_are_listed(tmp_path):
    text = "id,day,lat,lon,vw,cm\na,2020-01-01,50,7,0.1,5\na,2020-01-01,50,7,0.3,9\n"
    columns = {**COLUMNS, "depth": {"column": "cm", "scale": 0.01}}
    ds = open_stations(write(tmp_path, text), "csv", columns=columns)
    assert json.loads(str(ds["sensors"].values[0])) == [{"sensor": "", "depth_m": [0.05, 0.05]}]


def test_several_rows_of_a_day_are_averaged_in_utc(tmp_path):
    text = "id,day,lat,lon,vw\na,2020-01-01T06:00Z,50,7,0.1\na,2020-01-01T18:00Z,50,7,0.3\na,2020-01-02T00:30+01:00,50,7,0.8\n"
    ds = open_stations(write(tmp_path, text), "csv", columns=COLUMNS)
    # Half past midnight in Bonn is still 1 January in UTC.
    np.testing.assert_allclose(ds["sm"].values, [[0.4]], rtol=1e-6)


DEPTHS = """id,day,lat,lon,vw,alt
a,2020-01-01,50,7,0.1,-0.1
a,2020-01-01,50,7,0.3,-0.3
a,2020-01-01,50,7,0.6,-0.6
b,2020-01-01,51,8,0.9,-0.9
"""
WITH_DEPTH = {**COLUMNS, "depth": {"column": "alt", "scale": -1}}


def test_depth_column_with_scale_minus_one(tmp_path):
    path = write(tmp_path, DEPTHS)
    ds = open_stations(path, "csv", depth_m=(0.25, 0.35), columns=WITH_DEPTH)
    assert ds["station"].values.tolist() == ["TABLE/a"]
    np.testing.assert_allclose(ds["sm"].values, [[0.3]], rtol=1e-6)
    assert ds["rows_other_depth"].values.tolist() == [2]
    assert list(json.loads(ds.attrs["left_out"])) == ["TABLE/b"]


def test_of_several_depths_the_nearest_to_the_middle(tmp_path):
    ds = open_stations(write(tmp_path, DEPTHS), "csv", depth_m=(0.0, 0.7), columns=WITH_DEPTH)  # middle 0.35
    np.testing.assert_allclose(ds["sm"].values, [[0.3]], rtol=1e-6)


def test_of_two_depths_as_near_the_shallower(tmp_path):
    ds = open_stations(write(tmp_path, DEPTHS), "csv", depth_m=(0.1, 0.3), columns=WITH_DEPTH)  # middle 0.2
    np.testing.assert_allclose(ds["sm"].values, [[0.1]], rtol=1e-6)


def test_depth_that_no_station_has_lists_those_there_are(tmp_path):
    message = refusal(write(tmp_path, DEPTHS), depth_m=(2.0, 3.0), columns=WITH_DEPTH)
    assert "0.1, 0.3, 0.6, 0.9 m" in message


def test_period_gives_all_its_days(tmp_path):
    ds = open_stations(write(tmp_path, LONG), "csv", period=("2019-12-31", "2020-01-01"), columns=COLUMNS)
    np.testing.assert_allclose(ds["sm"].values, [[np.nan, 0.1], [np.nan, 0.3]], rtol=1e-6)


def test_period_without_a_row(tmp_path):
    assert "2021-01-01" in refusal(write(tmp_path, LONG), period=("2021-01-01", "2021-02-01"))


def test_places_in_another_crs(tmp_path):
    path = write(tmp_path, "id,day,e,n,vw\na,2020-01-01,500000,5600000,0.1\nb,2020-01-01,364000,5612345.5,0.1\n")
    columns = {"station": "id", "time": "day", "x": "e", "y": "n", "sm": "vw"}
    ds = open_stations(path, "csv", columns=columns, crs="EPSG:32632")
    longitude, latitude = Transformer.from_crs(32632, 4326, always_xy=True).transform(
        [500000, 364000], [5600000, 5612345.5]
    )
    np.testing.assert_allclose(ds["longitude"].values, longitude, atol=1e-9)
    np.testing.assert_allclose(ds["latitude"].values, latitude, atol=1e-9)
    assert abs(ds["longitude"].values[0] - 9.0) < 1e-9  # the zone's middle meridian


def test_unknown_crs(tmp_path):
    path = write(tmp_path, "id,day,e,n,vw\na,2020-01-01,500000,5600000,0.1\n")
    columns = {"station": "id", "time": "day", "x": "e", "y": "n", "sm": "vw"}
    assert "EPSG:99999999" in refusal(path, columns=columns, crs="EPSG:99999999")


def test_static_that_varies_is_refused(tmp_path):
    path = write(tmp_path, LONG.replace("0.2,20", "0.2,25"))
    message = refusal(path, columns={**COLUMNS, "clay": "clay"})
    for words in ("clay", "TABLE/a", "20", "25"):
        assert words in message


def test_no_number_names_the_line(tmp_path):
    message = refusal(write(tmp_path, LONG.replace("0.3,30", "wet,30")))
    assert "line 4" in message
    assert "'wet'" in message
    assert "'vw'" in message


@pytest.mark.parametrize("text", ["soon", "2020-13-01"])
def test_no_date_names_the_line(tmp_path, text):
    message = refusal(write(tmp_path, LONG.replace("2020-01-02", text)))
    assert "line 3" in message
    assert text in message


def test_days_as_numbers_are_not_taken_for_nanoseconds(tmp_path):
    """20200101 is the first of January 2020, or refused; it is never 1970."""
    path = write(tmp_path, LONG.replace("2020-01-0", "2020010"))
    try:
        ds = open_stations(path, "csv", columns=COLUMNS)
    except SmgeoError as error:
        assert "20200101" in str(error)
    else:
        assert str(ds["time"].values[0])[:10] == "2020-01-01"


def test_missing_column_names_the_nearest(tmp_path):
    path = write(tmp_path, LONG.replace("vw", "vol_water"))
    message = refusal(path, columns={**COLUMNS, "sm": "vol_wtaer"})
    assert "'vol_wtaer'" in message
    assert "did you mean 'vol_water'?" in message


def test_missing_file(tmp_path):
    assert "nowhere.csv" in refusal(tmp_path / "nowhere.csv")


@pytest.mark.parametrize("content", [b"", b"\x1f\x8bbroken"])
def test_file_that_is_no_table(tmp_path, content):
    path = tmp_path / ("t.csv.gz" if content else "t.csv")
    path.write_bytes(content)
    assert path.name in refusal(path)


def test_own_variable_of_a_recipe(tmp_path):
    own = {**FEATURES, "twi": Feature("twi", "wetness", "1", "static", "here", (0.0, 99.0))}
    path = write(tmp_path, LONG)
    assert open_stations(path, "csv", columns={**COLUMNS, "twi": "clay"}, catalog=own)["twi"].values.tolist() == [
        20.0,
        30.0,
    ]
    assert "'twi'" in refusal(path, columns={**COLUMNS, "twi": "clay"})


def test_share_of_a_days_rows(tmp_path):
    rows = [f"a,2020-01-0{d}T{h:02d}:00,50,7,0.{d}" for d, n in ((1, 4), (2, 4), (3, 1)) for h in range(n)]
    path = write(tmp_path, "id,day,lat,lon,vw\n" + "\n".join(rows) + "\n")
    ds = open_stations(path, "csv", columns=COLUMNS, min_valid_share=0.5)
    np.testing.assert_allclose(ds["sm"].values, [[0.1, 0.2, np.nan]], rtol=1e-6)


# ---- Cook Farm


def test_cook_farm_at_0_3_m(data):
    recipe = read_recipe("cookfarm")
    source = recipe.stations[0]
    with dask.config.set(scheduler="synchronous"):
        ds = open_stations(
            data / source.path,
            "csv",
            recipe.target.depth_m,
            columns=source.columns,
            crs=source.crs,
            network=source.network,
            catalog=recipe.catalog,
        )
    assert ds.sizes["station"] == 42
    assert int(ds["sm"].notnull().sum()) == 26_567
    raw = pd.read_csv(data / source.path)
    assert int(ds["rows_read"].sum()) == len(raw) == 128_545
    one = raw[(raw["SOURCEID"] == "CAF003") & np.isclose(raw["altitude"], -0.3)].set_index("Date")["VW"]
    got = ds["sm"].sel(station="COOKFARM/CAF003").dropna("time")
    assert got.size == len(one)
    np.testing.assert_allclose(got.values, one.loc[[str(t)[:10] for t in got["time"].values]].to_numpy(), rtol=1e-6)


def test_column_in_another_unit_is_refused_and_single_impossible_values_are_dropped_and_counted(tmp_path):
    rows = "id,day,lat,lon,vw\na,2020-01-01,50,7,20\na,2020-01-02,50,7,30\na,2020-01-03,50,7,0.3\n"
    columns = {"station": "id", "time": "day", "latitude": "lat", "longitude": "lon", "sm": "vw"}
    assert "another unit" in refusal(write(tmp_path, rows), columns=columns)
    rows = "id,day,lat,lon,vw\na,2020-01-01,50,7,0.2\na,2020-01-02,50,7,-9999\na,2020-01-03,50,7,0.3\n"
    ds = open_stations(write(tmp_path, rows), "csv", columns=columns).compute()
    np.testing.assert_allclose(ds["sm"].values, [[0.2, np.nan, 0.3]], rtol=1e-6)
    assert ds["rows_without_target"].values.tolist() == [1]


def test_numbers_that_mean_missing_are_those_of_the_file(tmp_path):
    """Before scale and offset, and before a day's mean."""
    table = "id,day,lat,lon,vw,t\na,2020-01-01T00:00,50,7,10,-99\na,2020-01-01T12:00,50,7,20,150\na,2020-01-02T00:00,50,7,20,-9999\n"
    own = {
        **FEATURES,
        "soil": Feature("soil", "soil", "degC", "dynamic", "test", (-500.0, 60.0), missing=(-99.0, -9999.0)),
    }
    columns = {**COLUMNS, "sm": {"column": "vw", "scale": 0.01}, "soil": {"column": "t", "scale": 0.1, "offset": 1.5}}
    ds = open_stations(write(tmp_path, table), "csv", columns=columns, catalog=own)
    np.testing.assert_allclose(ds["soil"], [[16.5, np.nan]], rtol=1e-6)
    np.testing.assert_allclose(ds["sm"], [[0.15, 0.2]], rtol=1e-6)
