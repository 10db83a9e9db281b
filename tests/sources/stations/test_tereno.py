"""Exports of the TERENO portal: the layout that the reader's text describes, and what a user can name instead."""

from __future__ import annotations

import json
import zipfile

import dask
import numpy as np
import pandas as pd
import pytest

from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.sources import open_stations

SWC = "SoilWaterContent_0.05mSensor1 in [%]"
PLACE = {"station": "RO_001", "latitude": 50.62, "longitude": 6.3, "altitude": 511.0}


def forbid(*args, **kwargs):
    raise AssertionError("computed, where nothing must be")


def stamps(day="2013-01-10", offset="+0000", step=60):
    start = pd.Timestamp(day)
    return [f"{start + pd.Timedelta(minutes=m):%Y-%m-%dT%H:%M:%S.000}{offset}" for m in range(0, 24 * 60, step)]


def write_export(folder, columns, rows, *, name="RO_001.csv", separator=",", meta=PLACE):
    """`# key: value` lines, `#` and the names of the columns, then rows; noData is missing. Rows are lists of words."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"# {k}: {v}" for k, v in meta.items()]
    lines += ["#" + separator.join(["timestamp", *columns])]
    lines += [separator.join(map(str, row)) for row in rows]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / name


def flagged(values, flags="ok: ok", **options):
    flags = [flags] * len(values) if isinstance(flags, str) else flags
    return [list(row) for row in zip(stamps(**options), values, flags, strict=True)]


COLUMNS = [SWC, "SoilWaterContent_0.05mSensor1_QC"]


def test_units_flags_and_missing_values_by_hand(tmp_path):
    values = [20.0] * 12 + [30.0] * 6 + ["noData"] * 3 + [250.0] * 3
    flags = ["ok: ok"] * 12 + ["baddata: spike"] * 6 + ["ok: ok"] * 6
    write_export(tmp_path, COLUMNS, flagged(values, flags))
    ds = open_stations(tmp_path, kind="tereno")
    assert ds["station"].values.tolist() == ["TERENO/RO_001"]
    assert (float(ds["latitude"][0]), float(ds["longitude"][0])) == (50.62, 6.3)
    assert float(ds["station_elevation"][0]) == 511.0
    np.testing.assert_allclose(ds["sm"].values, [[0.20]], rtol=1e-6)
    assert ds["sm"].dtype == "float32"
    assert ds["hours_read"].values.tolist() == [24]
    assert ds["hours_flagged"].values.tolist() == [12]  # 6 by flag, 3 missing, 3 outside 0 to 1
    both = open_stations(tmp_path, kind="tereno", flags=("ok", "baddata"))
    np.testing.assert_allclose(both["sm"].values, [[(12 * 0.2 + 6 * 0.3) / 18]], rtol=1e-6)
    one = open_stations(tmp_path, kind="tereno", flags=("OK: OK", "baddata: spike"))
    np.testing.assert_allclose(one["sm"].values, both["sm"].values)


def test_times_with_an_offset_are_turned_into_utc(tmp_path):
    # A local day of Central European Time: its first hour is of the day before in UTC.
    write_export(tmp_path, COLUMNS, flagged([10.0] + [30.0] * 23, offset="+0100"))
    ds = open_stations(tmp_path, "tereno", min_valid_share=0.0)
    assert [str(t)[:10] for t in ds["time"].values] == ["2013-01-09", "2013-01-10"]
    np.testing.assert_allclose(ds["sm"].values, [[0.1, 0.3]], rtol=1e-6)
    # The same without an offset in the file.
    write_export(tmp_path / "naive", COLUMNS, flagged([10.0] + [30.0] * 23, offset=""))
    np.testing.assert_allclose(
        open_stations(tmp_path / "naive", "tereno", min_valid_share=0.0, utc_offset_hours=1)["sm"].values,
        [[0.1, 0.3]],
        rtol=1e-6,
    )
    naive = open_stations(tmp_path / "naive", "tereno", min_valid_share=0.0)
    assert naive.sizes["time"] == 1
    np.testing.assert_allclose(naive["sm"].values, [[(0.1 + 23 * 0.3) / 24]], rtol=1e-6)


def test_two_sensors_a_depth_are_averaged_and_depths_chosen_by_rule(tmp_path):
    columns = [f"SoilWaterContent_{d}mSensor{n} in [m^3/m^3]" for d in ("0.05", "0.2") for n in (1, 2)]
    columns += [f"{c.split(' in ')[0]}_QC" for c in columns] + [
        "SoilTemperature_0.05mSensor1 in [degC]",
        "Discharge in [m]",
    ]
    row = [0.20, 0.30, 0.40, 0.40, "ok", "ok", "ok", "ok", 8.5, 1]
    write_export(tmp_path, columns, [[t, *row] for t in stamps()])
    ds = open_stations(tmp_path, "tereno")
    np.testing.assert_allclose(ds["sm"].values, [[0.25]], rtol=1e-6)
    assert ds["days_overlapping"].values.tolist() == [1]
    assert [r["sensor"] for r in json.loads(str(ds["sensors"].values[0]))] == ["Sensor1", "Sensor2"]
    mean = open_stations(tmp_path, "tereno", depth_m=(0.0, 0.3), depth_rule="mean")
    np.testing.assert_allclose(mean["sm"].values, [[0.325]], rtol=1e-6)
    np.testing.assert_allclose(mean["sensor_depth"].values, [0.125], rtol=1e-6)
    with pytest.warns(SmgeoWarning, match="TERENO/RO_001 Sensor1"):  # the thermometer has no flags
        warm = open_stations(tmp_path, "tereno", variables=("soil_temperature",))
    np.testing.assert_allclose(warm["soil_temperature"].values, [[8.5]], rtol=1e-6)


def test_several_files_of_a_station_are_one_series_even_within_a_day(tmp_path):
    rows = flagged([20.0] * 12 + [40.0] * 12)
    write_export(tmp_path, COLUMNS, rows[:8], name="a.csv")
    write_export(tmp_path, COLUMNS, rows[8:], name="b.csv", separator=";")
    ds = open_stations(tmp_path, "tereno")
    np.testing.assert_allclose(ds["sm"].values, [[0.3]], rtol=1e-6)
    assert ds["days_incomplete"].values.tolist() == [0]
    assert ds["hours_without_row"].values.tolist() == [0]
    assert len(json.loads(str(ds["sensors"].values[0]))) == 1
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        for file in tmp_path.glob("*.csv"):
            archive.write(file, f"folder/{file.name}")
    np.testing.assert_array_equal(open_stations(tmp_path / "export.zip", "tereno")["sm"].values, ds["sm"].values)
    np.testing.assert_allclose(open_stations(tmp_path / "b.csv", "tereno")["sm"].values, [[0.35]], rtol=1e-6)
    write_export(tmp_path, COLUMNS, rows, name="c.csv", meta={**PLACE, "latitude": 51.0})
    with pytest.raises(SmgeoError, match=r"a\.csv and c\.csv give different positions of TERENO/RO_001"):
        open_stations(tmp_path, "tereno")


def test_quarter_hours_duplicates_and_disorder_are_counted(tmp_path):
    rows = flagged([20.0] * 96, step=15)
    rows = [*rows[1:], rows[0], rows[0]]
    write_export(tmp_path, COLUMNS, rows)
    ds = open_stations(tmp_path, "tereno")
    np.testing.assert_allclose(ds["sm"].values, [[0.2]], rtol=1e-6)
    counts = {n: int(ds[n].values[0]) for n in ("hours_read", "rows_same_time", "rows_same_hour", "rows_unsorted")}
    assert counts == {"hours_read": 97, "rows_same_time": 1, "rows_same_hour": 73, "rows_unsorted": 1}


def test_other_exports_are_read_by_naming_their_columns(tmp_path):
    """The layout of COSMOS-Europe's files (doi:10.34731/x9s3-kr48): no metadata, flags 0 and 1, no depth in the name."""
    lines = ["DateTime_utc,SoilMoisture_volumetric_MovAvg24h,Flag_Snow_ERA5,Flag_Porosity_Excess"]
    lines += [
        f"2020-05-01 {h:02d}:00:00+00:00,{0.2 if h < 12 else 0.6},{int(h >= 18)},{int(h == 0)}" for h in range(24)
    ]
    (tmp_path / "SEC001.csv").write_text("\n".join(lines))
    (tmp_path / "places.txt").write_text("station,latitude,longitude\nSEC001,50.87,6.45\n")
    column = {
        "variable": "sm",
        "depth_m": [0.0, 0.1],
        "units": "m3/m3",
        "flag": ["Flag_Snow_ERA5", "Flag_Porosity_Excess"],
        "sensor": "CRNS",
    }
    ds = open_stations(
        tmp_path / "SEC001.csv",
        "tereno",
        columns={"SoilMoisture_volumetric_MovAvg24h": column},
        stations=tmp_path / "places.txt",
        flags=("0",),
        network="COSMOS",
    )
    assert ds["station"].values.tolist() == ["COSMOS/SEC001"]
    np.testing.assert_allclose(ds["sm"].values, [[(11 * 0.2 + 6 * 0.6) / 17]], rtol=1e-6)
    assert ds["hours_flagged"].values.tolist() == [7]
    assert json.loads(str(ds["sensors"].values[0]))[0]["depth_m"] == [0.0, 0.1]


@pytest.mark.parametrize(
    ("columns", "meta", "message"),
    [
        (["SoilWaterContent_0.05mSensor1"], PLACE, "does not contain its unit.*units in columns"),
        (["SoilWaterContent_0.05mSensor1 in [mm]"], PLACE, "unknown unit 'mm' of sm"),
        (["AirTemperature in [degC]"], PLACE, "no column of soil water content.*name them in columns"),
        ([SWC], {"station": "X"}, "no position of X .*stations"),
    ],
)
def test_what_cannot_be_understood_is_named_with_the_remedy(tmp_path, columns, meta, message):
    write_export(tmp_path, columns, [[t, 0.2] for t in stamps()], meta=meta)
    with pytest.raises(SmgeoError, match=message):
        open_stations(tmp_path, "tereno")


def test_unreadable_file_is_named_and_the_others_are_read(tmp_path):
    write_export(tmp_path, COLUMNS, flagged([20.0] * 24))
    (tmp_path / "readme.txt").write_text("About these data\n")
    with pytest.warns(SmgeoWarning, match=r"1 file\(s\).*readme\.txt: no line of column names"):
        ds = open_stations(tmp_path, "tereno")
    assert list(json.loads(ds.attrs["left_out"])) == ["readme.txt"]
    assert ds.sizes["station"] == 1


def test_broken_row_leaves_the_file_out_with_its_line(tmp_path):
    rows = flagged([20.0] * 24)
    rows[4][1] = "2O.0"
    write_export(tmp_path, COLUMNS, rows)
    ds = open_stations(tmp_path, "tereno")
    with pytest.warns(SmgeoWarning, match=r"line 10: '2O\.0'"):  # 4 lines of metadata, the names, the fifth row
        ds = ds.compute(scheduler="synchronous")
    assert ds["files_unreadable"].values.tolist() == [1]
    assert np.isnan(ds["sm"].values).all()


def test_columns_without_flags_are_taken_whole_and_warned_about(tmp_path):
    write_export(tmp_path, [SWC], [[t, 20.0] for t in stamps()])
    with pytest.warns(SmgeoWarning, match=r"1 sensor\(s\) have no column of quality flags.*TERENO/RO_001 Sensor1"):
        ds = open_stations(tmp_path, "tereno")
    np.testing.assert_allclose(ds["sm"].values, [[0.2]], rtol=1e-6)


def test_opening_is_lazy_and_one_task_reads_a_station(tmp_path):
    for name in ("A", "B"):
        write_export(tmp_path, COLUMNS, flagged([20.0] * 24), name=f"{name}.csv", meta={**PLACE, "station": name})
    with dask.config.set(scheduler=forbid):
        ds = open_stations(tmp_path, "tereno")
    assert ds["sm"].chunks == ((1, 1), (1,))
    loads = [k for k in ds["sm"].__dask_graph__().to_dict() if "_load_station" in str(k)]
    assert len(loads) == 2


def test_unknown_kind_names_the_nearest(tmp_path):
    with pytest.raises(SmgeoError, match="did you mean 'tereno'"):
        open_stations(tmp_path, kind="terreno")
