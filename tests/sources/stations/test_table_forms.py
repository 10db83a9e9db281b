"""How tables are written: ids, times, separators, decimals, missing values, depths, places, days; truth by hand."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pandas as pd
import pytest

from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.recipe.stations import parse_stations
from smgeo.sources import open_stations

COLUMNS = {"station": "id", "time": "t", "latitude": "lat", "longitude": "lon", "sm": "sm"}


def write(folder, text, name="t.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def read(folder, text, encoding="utf-8", **options):
    options = {"columns": COLUMNS, **options}
    return open_stations(write(folder, text, encoding=encoding), "csv", **options).compute()


def refusal(folder, text, **options) -> str:
    with pytest.raises(SmgeoError) as error:
        read(folder, text, **options)
    return str(error.value)


def rows(times, values=None, station="A"):
    values = [0.1 * (i + 1) for i in range(len(times))] if values is None else values
    return "id,t,lat,lon,sm\n" + "".join(f"{station},{t},50,8,{v:.3f}\n" for t, v in zip(times, values, strict=True))


def days(ds):
    return [str(t)[:10] for t in ds["time"].values]


# ---- ids


@pytest.mark.parametrize(
    "ids", [["0044", "00044"], ["00044", "00161"], ["NA", "B"], ["1e5", "100000"], ["nan", "null"]]
)
def test_ids_are_text(tmp_path, ids):
    text = "id,t,lat,lon,sm\n" + "".join(f"{s},2020-01-01,{50 + i},8,0.{i + 1}\n" for i, s in enumerate(ids))
    ds = read(tmp_path, text)
    got = dict(zip(ds["station"].values.tolist(), ds["sm"].values[:, 0].tolist(), strict=True))
    assert got == pytest.approx({f"TABLE/{s}": 0.1 * (i + 1) for i, s in enumerate(ids)})


def test_ids_of_wide_tables_and_of_tables_of_stations_are_text(tmp_path):
    write(tmp_path, "station,latitude,longitude\n00044,50,8\nNA,51,9\n", "p.csv")
    options = {"columns": {"time": "t"}, "layout": "wide", "stations": tmp_path / "p.csv"}
    ds = read(tmp_path, "t,00044,NA\n2020-01-01,0.1,0.2\n", **options)
    assert ds["station"].values.tolist() == ["TABLE/00044", "TABLE/NA"]
    np.testing.assert_allclose(ds["sm"].values, [[0.1], [0.2]], rtol=1e-6)


def test_a_row_without_an_id_is_named(tmp_path):
    text = rows(["2020-01-01", "2020-01-02"]).replace("A,2020-01-02", ",2020-01-02")
    assert "line 3: a row has no station" in refusal(tmp_path, text)


def test_empty_rows_at_the_end_of_a_spreadsheet_are_none(tmp_path):
    assert read(tmp_path, rows(["2020-01-01"]) + ",,,,\n,,,,\n")["rows_read"].values.tolist() == [1]


# ---- times

HALF_HOURS = pd.date_range("2020-06-01", "2020-06-03 23:30", freq="30min")


@pytest.mark.parametrize(
    "form", ["%Y-%m-%d %H:%M", "%Y%m%dT%H%M", "%Y%m%d%H%M", "%d.%m.%Y %H:%M", "%m/%d/%Y %I:%M %p", "%d %b %Y %H:%M"]
)
def test_an_offset_acts_on_every_form(tmp_path, form):
    # 7 h behind UTC; the value is the number of the UTC day / 10, so a shift by an hour would mix two days.
    values = ((HALF_HOURS + pd.Timedelta(hours=7)).normalize() - pd.Timestamp("2020-05-31")).days / 10
    text = rows(HALF_HOURS.strftime(form), values)
    options = {} if form[1] != "d" or "b" in form else {"day_first": True}
    options |= {"day_first": False} if form.startswith("%m") else {}
    ds = read(tmp_path, text, utc_offset_hours=-7, **options)
    assert days(ds) == ["2020-06-01", "2020-06-02", "2020-06-03", "2020-06-04"]
    np.testing.assert_allclose(ds["sm"].values, [[0.1, 0.2, 0.3, 0.4]], rtol=1e-5)


@pytest.mark.parametrize(
    ("word", "options", "day"),
    [
        ("2020-01-31 24:00", {}, "2020-02-01"),
        ("202001312400", {}, "2020-02-01"),
        ("2020-01-31T24:00:00Z", {}, "2020-02-01"),
        ("31/01/2020 24:00", {}, "2020-02-01"),
        ("31/01/2020 24:00", {"time_format": "%d/%m/%Y %H:%M"}, "2020-02-01"),
        ("2020-01-24", {}, "2020-01-24"),
        ("20200124", {}, "2020-01-24"),
        ("24/01/2024", {}, "2024-01-24"),
        ("202001240024", {}, "2020-01-24"),
        ("2020012400", {}, "2020-01-24"),
        ("2020-01-31T23:30-0100", {}, "2020-02-01"),
        ("2020-01-31T23:30-01", {}, "2020-02-01"),
        ("2020-01-31 23:30 -01:00", {}, "2020-02-01"),
        ("2020-02-01 00:30+0100", {}, "2020-01-31"),
        ("2020-02-01 00:30 UTC", {"utc_offset_hours": 5}, "2020-02-01"),
        ("2020/1/5 6:00", {}, "2020-01-05"),
        ("01/02/2020", {"day_first": True}, "2020-02-01"),
        ("01/02/2020", {"day_first": False}, "2020-01-02"),
        ("01.02.20", {"time_format": "%d.%m.%y"}, "2020-02-01"),
        ("2020-036", {"time_format": "%Y-%j"}, "2020-02-05"),
        ("01/31/2020 11:30 PM", {"utc_offset_hours": -1}, "2020-02-01"),
        ("Jan 31 2020", {}, "2020-01-31"),
        ("31-Jan-2020 23:30", {"utc_offset_hours": -1}, "2020-02-01"),
        ("2020-01-31 23", {"utc_offset_hours": -2}, "2020-02-01"),
        ("2020-02-01 00:00", {"stamps": "end"}, "2020-01-31"),
        ("2020-01-31 24:00", {"stamps": "end"}, "2020-01-31"),
        ("2020-02-01", {"stamps": "end"}, "2020-02-01"),
        ("2020-02-01", {"utc_offset_hours": 5}, "2020-02-01"),
    ],
)
def test_forms_of_times(tmp_path, word, options, day):
    assert days(read(tmp_path, rows([word]), **options)) == [day]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("01/02/2020", "day_first"),
        ("01/02/20", "time_format"),
        ("43831.5", "spreadsheet"),
        ("1577836800", "seconds"),
        ("2020-01", "not a date"),
        ("2020-13-01", "not a date"),
        ("2020-01-01 06:00 CET", "not a date"),
        ("", "no time"),
    ],
)
def test_times_that_are_refused(tmp_path, word, hint):
    message = refusal(tmp_path, rows([word]))
    assert hint in message
    assert "t.csv" in message


def test_the_table_shows_which_number_is_the_day(tmp_path):
    assert days(read(tmp_path, rows(["01/02/2020", "13/02/2020"])))[0] == "2020-02-01"
    assert days(read(tmp_path, rows(["01/02/2020", "01/13/2020"])))[0] == "2020-01-02"
    assert "'13/02/2020' has its day first" in refusal(tmp_path, rows(["13/02/2020", "02/13/2020"]))


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        (["0", "5", "23"], "2020-02-01"),
        (["0100", "1230", "2330"], "2020-02-01"),
        (["30", "100", "2330"], "2020-02-01"),
        (["1.0", "2.0", "24.0"], "2020-02-01"),
        (["1:00", "2:00", "23:30"], "2020-02-01"),
    ],
)
def test_date_and_hour_in_two_columns(tmp_path, hours, expected):
    text = "id,d,h,lat,lon,sm\n" + "".join(f"A,2020-01-31,{h},50,8,0.1\n" for h in hours)
    ds = read(tmp_path, text, columns={**COLUMNS, "time": ["d", "h"]}, utc_offset_hours=-2)
    assert days(ds) == ["2020-01-31", expected]


def test_year_day_of_year_and_clock_of_old_loggers(tmp_path):
    text = "id,y,j,hm,lat,lon,sm\nA,2020,31,30,50,8,0.1\nA,2020,31,2400,50,8,0.3\n"
    columns = {**COLUMNS, "time": ["y", "j", "hm"]}
    ds = read(tmp_path, text, columns=columns, time_format="%Y %j %H%M")
    assert days(ds) == ["2020-01-31", "2020-02-01"]
    split = "id,y,m,d,lat,lon,sm\nA,2020,1,5,50,8,0.1\n"
    assert days(read(tmp_path, split, columns={**COLUMNS, "time": ["y", "m", "d"]})) == ["2020-01-05"]


# ---- text


def test_german_spreadsheet(tmp_path):
    text = "\ufeffStation;Datum;Breite;Länge;Feuchte\nMühle;31.01.2020 06:00;50,5;8,25;12,5\nMühle;01.02.2020 06:00;50,5;8,25;30\n"
    columns = {
        "station": "Station", "time": "Datum", "latitude": "Breite", "longitude": "Länge", "sm": {"column": "Feuchte", "scale": 0.01},
    }  # fmt: skip
    ds = read(tmp_path, text, columns=columns, decimal=",")
    assert ds["station"].values.tolist() == ["TABLE/Mühle"]
    assert (ds["latitude"].item(), ds["longitude"].item()) == (50.5, 8.25)
    np.testing.assert_allclose(ds["sm"].values, [[0.125, 0.3]], rtol=1e-6)
    old = text.removeprefix("\ufeff")
    path = write(tmp_path, old, encoding="latin-1")
    ds = open_stations(path, "csv", columns=columns, decimal=",", encoding="latin-1")
    assert ds["station"].values.tolist() == ["TABLE/Mühle"]
    with pytest.raises(SmgeoError, match="set encoding"):
        open_stations(path, "csv", columns=columns, decimal=",")
    with pytest.raises(SmgeoError, match='set decimal: ","'):
        open_stations(write(tmp_path, old), "csv", columns=columns)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", "  "])
def test_the_separator_is_found(tmp_path, separator):
    text = rows(["2020-01-01", "2020-01-02"]).replace(",", separator)
    np.testing.assert_allclose(read(tmp_path, text)["sm"].values, [[0.1, 0.2]], rtol=1e-6)


def test_logger_with_comments_units_and_notes_above_its_header(tmp_path):
    head = "My logger,1234\nfirmware,3\n\n# made by hand\nid,t,lat,lon,sm\n-,UTC,deg,deg,m3/m3\n# more\n"
    text = head + "A,2020-01-01,50,8,0.1\n# moved\nA,2020-01-02,50,8,0.2\n"
    options = {"skip_rows": 2, "comment": "#", "units_rows": 1}
    np.testing.assert_allclose(read(tmp_path, text, **options)["sm"].values, [[0.1, 0.2]], rtol=1e-6)
    assert "line 10" in refusal(tmp_path, text.replace("0.2", "wet"), **options)
    assert "units_rows" in refusal(tmp_path, text.replace("UTC", "2020-01-01"), skip_rows=2, comment="#")


@pytest.mark.parametrize("separator", [",", " ", ";"])
def test_lines_of_other_lengths(tmp_path, separator):
    text = rows(["2020-01-01", "2020-01-02", "2020-01-03"])
    longer = text.replace("0.200", "0,200").replace(",", separator)
    message = refusal(
        tmp_path, longer if separator == "," else longer.replace("0" + separator + "200", f"0.2{separator}7")
    )
    assert "line 3 has more fields than there are columns (5)" in message
    shorter = text.replace(",0.200", "").replace(",", separator)
    np.testing.assert_allclose(read(tmp_path, shorter)["sm"].values, [[0.1, np.nan, 0.3]], rtol=1e-6)
    first = text.replace(",0.100", "").replace(",", separator)
    if separator != " ":
        np.testing.assert_allclose(
            read(tmp_path, first, separator=separator)["sm"].values, [[np.nan, 0.2, 0.3]], rtol=1e-6
        )
    ends = "\n".join(line + separator for line in text.replace(",", separator).splitlines()[1:])
    ended = text.splitlines()[0].replace(",", separator) + "\n" + ends
    np.testing.assert_allclose(read(tmp_path, ended)["sm"].values, [[0.1, 0.2, 0.3]], rtol=1e-6)


def test_the_first_line_that_excel_writes_for_others(tmp_path):
    text = "sep=;\r\n" + rows(["2020-01-01"]).replace(",", ";")
    np.testing.assert_allclose(read(tmp_path, text)["sm"].values, [[0.1]], rtol=1e-6)


def test_file_without_a_header(tmp_path):
    text = "A 2020-01-01 50 8 0.1\nA 2020-01-02 50 8 0.2\n"
    columns = {"station": 1, "time": 2, "latitude": 3, "longitude": 4, "sm": 5}
    np.testing.assert_allclose(
        read(tmp_path, text, columns=columns, header=False)["sm"].values, [[0.1, 0.2]], rtol=1e-6
    )
    named = read(tmp_path, text, header=False, names=["id", "t", "lat", "lon", "sm"])
    np.testing.assert_allclose(named["sm"].values, [[0.1, 0.2]], rtol=1e-6)
    assert "no column 6 (for sm); there are 5" in refusal(tmp_path, text, columns={**columns, "sm": 6}, header=False)


def test_missing_values_and_flags(tmp_path):
    text = "id,t,lat,lon,sm,q\n" + "".join(
        f"A,2020-01-{i:02d},50,8,{v},{q}\n"
        for i, (v, q) in enumerate(
            [
                ("0.1", "0"),
                ("", "0"),
                ("NaN", "0"),
                ("-", "0"),
                ("0.999", "0"),
                ("0.2", "1"),
                ("inf", "0"),
                ("0.3", "0.0"),
            ],
            1,
        )
    )
    columns = {**COLUMNS, "sm": {"column": "sm", "flag": "q", "good": [0]}}
    ds = read(tmp_path, text, columns=columns, missing=["-", 0.999])
    np.testing.assert_allclose(ds["sm"].values, [[0.1, *[np.nan] * 6, 0.3]], rtol=1e-6)
    assert ds["rows_without_target"].values.tolist() == [6]


def test_valid_range_of_a_source(tmp_path):
    ds = read(tmp_path, rows(["2020-01-01", "2020-01-02", "2020-01-03"], [0.1, 0.75, 0.3]), valid={"sm": [0, 0.7]})
    np.testing.assert_allclose(ds["sm"].values, [[0.1, np.nan, 0.3]], rtol=1e-6)
    assert "valid: 'smm'" in refusal(tmp_path, rows(["2020-01-01"]), valid={"smm": [0, 1]})


@pytest.mark.parametrize(
    ("text", "options", "hint"),
    [
        (rows(["2020-01-01", "2020-01-02"], [12.0, 30.0]), {}, "scale: 0.01"),
        (rows(["2020-01-01", "2020-01-02"], [-9999, -9999]), {}, "missing: [-9999]"),
        (rows(["2020-01-01"]), {"separator": ";"}, "set separator"),
        (rows(["2020-01-01"]).replace("0.100", "0,100"), {}, "decimal"),
        (rows(["2020-01-01"]).replace("id,t", "id,t,t"), {}, "'t' is the name of columns 2, 3"),
    ],
)
def test_messages_name_the_key_that_helps(tmp_path, text, options, hint):
    assert hint in refusal(tmp_path, text, **options)


def test_all_faults_of_a_table_are_told_at_once(tmp_path):
    text = "id,t,lat,lon,sm,p\nA,2020-01-01,50,8,wet,much\n"
    message = refusal(tmp_path, text, columns={**COLUMNS, "precipitation": "p"})
    assert "'wet'" in message
    assert "'much'" in message


# ---- depths


def test_columns_of_depths(tmp_path):
    text = (
        "id,t,lat,lon,sm_5cm,sm_20cm\nA,2020-01-01,50,8,0.1,0.2\nA,2020-01-02,50,8,,0.3\nB,2020-01-01,51,8,,0.4\nB,2020-01-02,51,8,,0.5\n"
        "C,2020-01-01,52,8,,\n"
    )
    columns = {**COLUMNS, "sm": {"sm_5cm": 0.05, "sm_20cm": 0.20}}
    ds = read(tmp_path, text, columns=columns)
    assert ds["station"].values.tolist() == ["TABLE/A"]
    np.testing.assert_allclose(ds["sm"].values, [[0.1, np.nan]], rtol=1e-6)
    assert sorted(json.loads(ds.attrs["left_out"])) == ["TABLE/B", "TABLE/C"]
    deep = read(tmp_path, text, columns=columns, depth_m=(0.0, 0.3))  # middle 0.15: 0.20 is nearer
    np.testing.assert_allclose(deep["sm"].values, [[0.2, 0.3], [0.4, 0.5]], rtol=1e-6)
    assert json.loads(deep["sensors"].values[0]) == [{"sensor": "sm_20cm", "depth_m": [0.2, 0.2]}]
    either = read(
        tmp_path, text, columns=columns, depth_m=(0.0, 0.2)
    )  # middle 0.1: 0.05 is nearer, where it has a value
    np.testing.assert_allclose(either["sm"].values, [[0.1, np.nan], [0.4, 0.5]], rtol=1e-6)
    assert "depths in the table: 0.05, 0.2 m" in refusal(tmp_path, text, columns=columns, depth_m=(0.5, 1.0))
    percent = {**COLUMNS, "sm": {"column": {"sm_5cm": 0.05, "sm_20cm": 0.20}, "scale": 0.5}}
    np.testing.assert_allclose(read(tmp_path, text, columns=percent)["sm"].values, [[0.05, np.nan]], rtol=1e-6)


# ---- places


def test_a_station_at_two_places_is_refused_with_its_lines(tmp_path):
    text = rows(["2020-01-01", "2020-01-02"])
    message = refusal(tmp_path, text.replace("2020-01-02,50", "2020-01-02,50.5"))
    assert "TABLE/A has rows at two places, latitude 50 (line 2) and 50.5 (line 3)" in message
    moved = text.replace("2020-01-02,50", "2020-01-02,50.00005")  # 5 m, as of rounding
    assert read(tmp_path, moved)["latitude"].values.tolist() == [50.0]


@pytest.mark.parametrize("place", ["150,8", "-9999,-9999", "inf,8", "50,500"])
def test_positions_that_are_none(tmp_path, place):
    assert "not a latitude and longitude" in refusal(tmp_path, rows(["2020-01-01"]).replace("50,8", place))


def test_stations_without_a_position(tmp_path):
    assert "line 2: a row has no position" in refusal(tmp_path, rows(["2020-01-01"]).replace("50,8", ","))


def test_longitudes_from_0_to_360(tmp_path):
    assert read(tmp_path, rows(["2020-01-01"]).replace("50,8", "50,262.5"))["longitude"].values.tolist() == [-97.5]


def test_points_without_stations_are_stations_and_their_rows_of_a_day_are_averaged(tmp_path):
    text = "t,lat,lon,sm\n2020-01-01,50.1,8.2,0.1\n2020-01-01,50.1,8.2,0.3\n2020-01-01,50.2,8.2,0.4\n"
    columns = {k: v for k, v in COLUMNS.items() if k != "station"}
    with pytest.warns(SmgeoWarning, match=r"1 row\(s\) of 1 station\(s\) have the time of another row.*line 3"):
        ds = read(tmp_path, text, columns=columns)
    assert ds["station"].values.tolist() == ["TABLE/50.10000_8.20000", "TABLE/50.20000_8.20000"]
    np.testing.assert_allclose(ds["sm"].values, [[0.2], [0.4]], rtol=1e-6)
    assert ds["rows_same_time"].values.tolist() == [1, 0]


def test_columns_of_the_table_of_stations_are_named(tmp_path):
    write(tmp_path, "Site ID;Lat;Lon;Alt;Farm;TZ\n007;50,5;8,25;120;north;-7\n", "p.csv")
    options = {
        "columns": {"station": "id", "time": "t", "sm": "sm"},
        "stations": tmp_path / "p.csv",
        "station_columns": {
            "station": "Site ID", "latitude": "Lat", "longitude": "Lon", "station_elevation": "Alt", "group": "Farm",
            "utc_offset_hours": "TZ",
        },
        "decimal": ",",
    }  # fmt: skip
    ds = read(tmp_path, "id;t;sm\n007;2020-01-01 20:00;0,1\n", **options)
    assert days(ds) == ["2020-01-02"]
    assert (ds["latitude"].item(), ds["longitude"].item(), ds["station_elevation"].item()) == (50.5, 8.25, 120)
    assert ds["group"].values.tolist() == ["north"]
    message = refusal(
        tmp_path, "id;t;sm\n007;2020-01-01;0,1\n", **{**options, "station_columns": {"station": "Sit ID"}}
    )
    assert "'Sit ID' (for station)" in message
    assert "station_columns" in message


def test_groups_are_held_out_together(tmp_path):
    import smgeo

    text = "id,t,lat,lon,sm,field\n" + "".join(
        f"{s},2020-01-{d:02d},{50 + i},8,0.{i + 1},{'north' if i < 2 else f'f{i}'}\n"
        for i, s in enumerate("ABCD")
        for d in (1, 2)
    )
    ds = read(tmp_path, text, columns={**COLUMNS, "group": "field"})
    assert ds["group"].values.tolist() == ["north", "north", "f2", "f3"]
    for _, held in smgeo.cv_folds(ds, "group-k-fold", 3):
        assert held[0].any() == held[1].any()
    for seed in range(5):
        split = smgeo.split_stations(ds, (0.5, 0.25, 0.25), extremes_to_train=False, seed=seed)
        assert any({"TABLE/A", "TABLE/B"} <= set(part) for part in split.parts().values())
    assert "group varies" in refusal(
        tmp_path, text.replace("2,50,8,0.1,north", "2,50,8,0.1,south"), columns={**COLUMNS, "group": "field"}
    )


# ---- several files, DataFrames, Parquet


def test_files_of_stations_by_a_pattern_a_folder_or_a_zip(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for i, s in enumerate(("007", "B")):
        write(folder, f"t,sm\n2020-01-01,0.{i + 1}\n", f"soil_{s}_v1.csv")
    write(folder, "something else", "readme.txt")
    write(tmp_path, "station,latitude,longitude\n007,50,8\nB,51,9\n", "p.csv")
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"deep/{file.name}")
    options = {
        "columns": {"time": "t", "sm": "sm"},
        "stations": tmp_path / "p.csv",
        "file_name": "soil_{station}_*.csv",
    }
    for path in (folder, folder / "soil_*.csv", tmp_path / "many.zip"):
        ds = open_stations(path, "csv", **options)
        assert ds["station"].values.tolist() == ["TABLE/007", "TABLE/B"]
        np.testing.assert_allclose(ds["sm"].values, [[0.1], [0.2]], rtol=1e-6)
    with pytest.raises(SmgeoError, match=r"soil_B_v1\.csv.*line 2.*'wet'"):
        write(folder, "t,sm\n2020-01-01,wet\n", "soil_B_v1.csv")
        open_stations(folder, "csv", **options)
    with pytest.raises(SmgeoError, match="set file_name"):
        open_stations(folder, "csv", **{**options, "file_name": "x_{station}.csv"})


def test_data_frames_and_parquet(tmp_path):
    frame = pd.DataFrame(
        {
            "station": [44, 44, 161], "time": pd.to_datetime(["2020-01-01 20:00", "2020-01-02 20:00", "2020-01-01 20:00"]),
            "latitude": [50.0, 50, 51], "longitude": 8.0, "vw": [10, 20.0, None], "clay": [20, 20, 30],
        }
    )  # fmt: skip
    options = {"columns": {"sm": {"column": "vw", "scale": 0.01}}, "utc_offset_hours": -5}
    ds = open_stations(frame, kind="csv", **options)
    assert ds["station"].values.tolist() == ["TABLE/161", "TABLE/44"]
    assert days(ds) == ["2020-01-02", "2020-01-03"]
    np.testing.assert_allclose(ds["sm"].values, [[np.nan, np.nan], [0.1, 0.2]], rtol=1e-6)
    assert ds["clay"].values.tolist() == [30, 20]
    zoned = frame.assign(time=frame["time"].dt.tz_localize("Etc/GMT+5"))
    np.testing.assert_array_equal(open_stations(zoned, columns=options["columns"])["sm"].values, ds["sm"].values)
    frame.to_parquet(tmp_path / "t.parquet")
    columns = {n: n for n in ("station", "time", "latitude", "longitude")} | options["columns"]
    again = open_stations(tmp_path / "t.parquet", "csv", columns=columns, utc_offset_hours=-5)
    np.testing.assert_array_equal(again["sm"].values, ds["sm"].values)
    with pytest.raises(SmgeoError, match="row 2"):
        open_stations(frame.assign(station=["a", None, "b"]), kind="csv", **options)
    with pytest.raises(SmgeoError, match="kind csv"):
        open_stations(frame, kind="ismn")


# ---- days

HOURLY = "id,t,lat,lon,sm,p\n" + "".join(
    f"A,{t:%Y-%m-%d %H:%M},50,8,0.2,1\n" for t in pd.date_range("2020-01-01", periods=48, freq="h")
)
RAIN = {**COLUMNS, "precipitation": "p"}


def test_hours_of_rain_are_summed(tmp_path):
    ds = read(tmp_path, HOURLY, columns=RAIN)
    assert ds["precipitation"].values.tolist() == [[24, 24]]
    assert ds["precipitation"].attrs["daily"] == "sum"
    np.testing.assert_allclose(ds["sm"].values, [[0.2, 0.2]], rtol=1e-6)
    assert read(tmp_path, HOURLY, columns=RAIN, daily={"precipitation": "mean"})["precipitation"].values.tolist() == [
        [1, 1]
    ]


def test_a_day_that_lacks_hours_has_no_sum_unless_its_share_is_enough(tmp_path):
    lacking = HOURLY.replace("A,2020-01-02 05:00,50,8,0.2,1\n", "").replace(
        "2020-01-02 06:00,50,8,0.2,1", "2020-01-02 06:00,50,8,0.2,"
    )
    np.testing.assert_array_equal(read(tmp_path, lacking, columns=RAIN)["precipitation"].values, [[24, np.nan]])
    filled = read(tmp_path, lacking, columns=RAIN, min_valid_share=0.5)
    assert filled["precipitation"].values.tolist() == [[24, 24]]  # 22 h give 22 mm


def test_a_repeated_hour_of_rain_counts_once(tmp_path):
    twice = HOURLY + "A,2020-01-02 05:00,50,8,0.2,1\n"
    with pytest.warns(SmgeoWarning, match="time of another row"):
        assert read(tmp_path, twice, columns=RAIN)["precipitation"].values.tolist() == [[24, 24]]


def test_days_of_rain_are_not_summed(tmp_path):
    text = "id,t,lat,lon,sm,p\n" + "".join(f"A,2020-01-{d:02d} 06:00,50,8,0.2,{d}\n" for d in (1, 2, 3))
    ds = read(tmp_path, text, columns=RAIN)
    assert ds["precipitation"].values.tolist() == [[1, 2, 3]]
    assert "daily" not in ds["precipitation"].attrs


def test_hours_at_the_end_of_their_interval_give_whole_days(tmp_path):
    text = (
        HOURLY.splitlines()[0]
        + "\n"
        + "".join(
            f"A,{t:%Y-%m-%d %H:%M},50,8,0.2,{1 + t.day}\n"
            for t in pd.date_range("2020-01-01 01:00", periods=48, freq="h")
        )
    )
    ds = read(tmp_path, text, columns=RAIN, stamps="end")
    # Midnight, with its day's number, closes the day before.
    assert ds["precipitation"].values.tolist() == [[23 * 2 + 3, 23 * 3 + 4]]


def test_sums_that_no_day_completes_are_announced(tmp_path):
    half = "\n".join(HOURLY.splitlines()[:12]) + "\n"
    with pytest.warns(SmgeoWarning, match="no day has all its rows"):
        assert np.isnan(read(tmp_path, half, columns=RAIN)["precipitation"].values).all()


# ---- the spec


def test_units_of_columns_are_checked_in_python_too(tmp_path):
    message = refusal(tmp_path, rows(["2020-01-01"]), columns={**COLUMNS, "sm": {"column": "sm", "units": "percent"}})
    assert "'percent'" in message
    assert "'m3 m-3'" in message


def test_a_spec_written_out_is_the_same_spec():
    spec = parse_stations(
        {"kind": "csv", "path": "x.zip", "preset": "uscrn", "columns": {"precipitation": None}}, "here"
    )
    again = parse_stations(spec.model_dump(mode="json"), "here")
    assert again == spec
    assert "precipitation" not in again.columns
