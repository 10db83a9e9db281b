"""The three formats of an ISMN download, sensors by depth, overlaps and disorder; truth by hand and by plain loops."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile

import dask
import numpy as np
import pandas as pd
import pytest

from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.sources import open_stations
from smgeo.sources.stations.series import TALLY

DAY = "2010/10/21"


def forbid(*args, **kwargs):
    raise AssertionError("computed, where nothing must be")


def write(path, lines, end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((end.join(lines) + end).encode())
    return path


def write_header_values(
    root, rows, *, network="NET", station="A", depth=(0.05, 0.05), sensor="Probe", dates="20100101_20101231"
):
    """Header+values, as https://ismn.bafg.de/data/header-value-files describes it; rows are (time, value, flag)."""
    name = f"{network}_{network}_{station}_sm_{depth[0]:.6f}_{depth[1]:.6f}_{sensor}_{dates}.stm"
    lines = [f"{network} {network} {station} 45.00000 3.00000 100.00 {depth[0]:.2f} {depth[1]:.2f} {sensor}"]
    lines += [f"{time} {value:.4f} {flag} M" for time, value, flag in rows]
    return write(root / network / station / name, lines)


def write_ceop_separate(root, rows, *, station="A", end="\n"):
    """One row: nominal and actual time, CSE, network, station, place, depths, value, flags (Readme.txt of such a download)."""
    lines = [
        f"{nominal} {actual} NET        NET             {station}          45.00000     3.00000  100.00    0.05    0.05   "
        f"{value:.4f} {flag} M "
        for nominal, actual, value, flag in rows
    ]
    return write(root / "NET" / f"NET_NET_{station}_sm_0.050000_0.050000_Probe_20100101_20101231.stm", lines, end)


def ceop_line(time, depth, temperature, moisture, *, station="A", apart=True, flags="UU"):
    """One row of CEOP: ceop_soils_format.html; the sensor's height is negative below the surface, and ISMN sets the sign apart."""
    height = f"- {depth:6.2f}" if apart else f"{-depth:7.2f}"
    return (
        f"{time} {time} NET        NET             {station}          45.00000     3.00000  100.00 {height} "
        f"{temperature:7.2f} {flags[0]} {moisture:8.4f} {flags[1]} "
    )


def hours(day=DAY):
    return [f"{day} {h:02d}:00" for h in range(24)]


def test_ceop_file_gives_every_depth_and_both_variables(tmp_path):
    lines = []
    for i, time in enumerate(hours()):
        lines.append(ceop_line(time, 0.05, 10.0 + i, 0.10))
        lines.append(ceop_line(time, 0.20, -999.99, 0.30, flags="MU"))
    write(tmp_path / "NET" / "NET_NET_A_20100304_20130801.stm", lines, end="\r")
    ds = open_stations(tmp_path, flags=("U",), variables=("soil_temperature",))
    assert ds["station"].values.tolist() == ["NET/A"]
    np.testing.assert_allclose(ds["sm"].values, [[0.10]], rtol=1e-6)
    np.testing.assert_allclose(ds["soil_temperature"].values, [[10 + 11.5]], rtol=1e-6)
    deep = open_stations(tmp_path, depth_m=(0.15, 0.25), flags=("U",), variables=("soil_temperature",))
    np.testing.assert_allclose(deep["sm"].values, [[0.30]], rtol=1e-6)
    # All temperatures at 20 cm are missing: there is no such sensor.
    assert np.isnan(deep["soil_temperature"].values).all()
    assert json.loads(deep.attrs["left_out"]) == {}
    assert int(open_stations(tmp_path)["hours_flagged"].sum()) == 24  # U is not G


def test_ceop_with_its_sign_at_the_number_and_several_stations(tmp_path):
    lines = [ceop_line(t, 0.05, 5.0, 0.2, station="A", apart=False) for t in hours()]
    lines += [ceop_line(t, 0.05, 5.0, 0.4, station="B", apart=False) for t in hours()]
    write(tmp_path / "NET_NET_ALL_20100304_20130801.stm", lines)
    ds = open_stations(tmp_path, flags=("U",))
    assert ds["station"].values.tolist() == ["NET/A", "NET/B"]
    np.testing.assert_allclose(ds["sm"].values, [[0.2], [0.4]], rtol=1e-6)
    np.testing.assert_allclose(ds["sensor_depth"].values, [0.05, 0.05], rtol=1e-6)


def test_ceop_in_percent_is_named_and_not_read(tmp_path):
    write(tmp_path / "CSE_NET_A_20100304_20130801.stm", [ceop_line(t, 0.05, 5.0, 20.0) for t in hours()])
    write_header_values(tmp_path, [(t, 0.2, "G") for t in hours()], station="B")
    with pytest.warns(SmgeoWarning, match=r"CSE_NET_A.*percent"):
        ds = open_stations(tmp_path)
    assert ds["station"].values.tolist() == ["NET/B"]
    assert "percent" in json.loads(ds.attrs["left_out"])["CSE_NET_A_20100304_20130801.stm"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_ceop_in_separate_files_goes_by_the_actual_time(tmp_path, end):
    # The last row's nominal time is the next day, its actual time this one.
    rows = [(t, t, 0.2, "G") for t in hours()[:23]] + [("2010/10/22 00:00", f"{DAY} 23:50", 0.44, "G")]
    write_ceop_separate(tmp_path, rows, end=end)
    ds = open_stations(tmp_path)
    assert [str(t)[:10] for t in ds["time"].values] == ["2010-10-21"]
    np.testing.assert_allclose(ds["sm"].values, [[(23 * 0.2 + 0.44) / 24]], rtol=1e-6)


def test_ceop_file_broken_in_the_middle_is_named_with_its_line(tmp_path):
    lines = [ceop_line(t, 0.05, 5.0, 0.2) for t in hours()]
    lines[6] = lines[6].replace("0.2000", "0.2x00")
    write(tmp_path / "NET_NET_A_20100304_20130801.stm", lines)
    write_header_values(tmp_path, [(t, 0.2, "G") for t in hours()], station="B")
    with pytest.warns(SmgeoWarning, match=r"line 7: expected a number, found '0\.2x00'"):
        ds = open_stations(tmp_path)
    assert ds["station"].values.tolist() == ["NET/B"]


def test_station_of_one_name_in_two_networks_is_two_stations(tmp_path):
    root = tmp_path / "several"
    write_header_values(root, [(t, 0.1, "G") for t in hours()], network="ONE")
    write_header_values(root, [(t, 0.4, "G") for t in hours()], network="TWO")
    with zipfile.ZipFile(tmp_path / "several.zip", "w") as archive:
        for file in root.rglob("*.stm"):
            archive.write(file, file.relative_to(root))
    for path in (root, tmp_path / "several.zip"):
        ds = open_stations(path)
        assert ds["station"].values.tolist() == ["ONE/A", "TWO/A"]
        np.testing.assert_allclose(ds["sm"].values, [[0.1], [0.4]], rtol=1e-6)


def test_names_with_underscores_are_split_where_the_header_says(tmp_path):
    path = write_header_values(tmp_path, [(t, 0.1, "G") for t in hours()], network="PBO_H2O", station="p_1")
    assert path.name.startswith("PBO_H2O_PBO_H2O_p_1_sm_")
    assert open_stations(tmp_path)["station"].values.tolist() == ["PBO_H2O/p_1"]


def test_tereno_as_a_network_of_the_ismn(tmp_path):
    # The numbers after the sensor are its redundancy and replacement: ismn.bafg.de/data/header-value-files.
    write_header_values(
        tmp_path, [(t, 0.35, "G") for t in hours()], network="TERENO", station="Wuestebach", sensor="SPADE_1_2"
    )
    ds = open_stations(tmp_path, networks=("TERENO",))
    assert ds["station"].values.tolist() == ["TERENO/Wuestebach"]
    assert json.loads(str(ds["sensors"].values[0])) == [
        {"sensor": "SPADE_1_2", "depth_m": [0.05, 0.05], "first": "2010-10-21", "last": "2010-10-21"}
    ]


@pytest.mark.parametrize(
    ("wanted", "mean", "removed"), [(("G",), 0.1, 18), (("G", "M"), 0.15, 12), (("G", "D01", "D03"), 0.2, 12)]
)
def test_flags_are_compared_whole_and_every_one_of_an_hour_counts(tmp_path, wanted, mean, removed):
    flags = ["G"] * 6 + ["M"] * 6 + ["D01,D03"] * 6 + ["D01,C01"] * 6
    values = [0.1] * 6 + [0.2] * 6 + [0.3] * 6 + [0.4] * 6
    write_header_values(tmp_path, list(zip(hours(), values, flags, strict=True)))
    ds = open_stations(tmp_path, flags=wanted, min_valid_share=0.2)
    np.testing.assert_allclose(ds["sm"].values, [[mean]], rtol=1e-6)
    assert ds["hours_flagged"].values.tolist() == [removed]
    assert ds["hours_read"].values.tolist() == [24]


# ---- depths and overlaps


@pytest.fixture
def profile(tmp_path):
    """Sensors at 2, 6 and 10 cm, the last of them on the first of two days only; one at 50 cm."""
    two_days = hours() + hours("2010/10/22")
    write_header_values(tmp_path, [(t, 0.1, "G") for t in two_days], depth=(0.02, 0.02))
    write_header_values(tmp_path, [(t, 0.3, "G") for t in two_days], depth=(0.06, 0.06))
    write_header_values(tmp_path, [(t, 0.5, "G") for t in hours()], depth=(0.10, 0.10))
    write_header_values(tmp_path, [(t, 0.9, "G") for t in two_days], depth=(0.50, 0.50))
    return tmp_path


@pytest.mark.parametrize(
    ("options", "values", "depth", "partial"),
    [
        ({}, [0.3, 0.3], 0.06, 0),
        ({"nearest_to_m": 0.01}, [0.1, 0.1], 0.02, 0),
        ({"nearest_to_m": 0.08}, [0.3, 0.3], 0.06, 0),  # 6 and 10 cm are as near: the shallower
        ({"depth_rule": "mean"}, [0.3, 0.2], 0.06, 1),  # (0.1 + 0.3 + 0.5) / 3; (0.1 + 0.3) / 2
        ({"depth_rule": "mean", "depth_m": (0.04, 0.6)}, [(0.3 + 0.5 + 0.9) / 3, 0.6], 0.22, 1),
    ],
)
def test_rules_of_depth(profile, options, values, depth, partial):
    ds = open_stations(profile, **options)
    np.testing.assert_allclose(ds["sm"].values, [values], rtol=1e-6)
    np.testing.assert_allclose(ds["sensor_depth"].values, [depth], rtol=1e-6)
    assert ds["days_partial"].values.tolist() == [partial]
    assert ds["days_overlapping"].values.tolist() == [0]
    assert ds["sm"].attrs["depth_rule"] == options.get("depth_rule", "nearest")
    record = json.loads(str(ds["sensors"].values[0]))
    assert np.isclose(np.mean([np.mean(r["depth_m"]) for r in record]), depth)


def test_rule_and_depth_that_do_not_fit_are_refused(profile):
    with pytest.raises(SmgeoError, match="depth_rule: needs 'nearest' or 'mean'; got 'neares'"):
        open_stations(profile, depth_rule="neares")
    with pytest.raises(SmgeoError, match=r"nearest_to_m 0\.5 .*0 to 0\.1 m"):
        open_stations(profile, nearest_to_m=0.5)
    with pytest.raises(SmgeoError, match="depth_rule is 'mean'"):
        open_stations(profile, nearest_to_m=0.05, depth_rule="mean")


def test_replaced_instrument_is_averaged_where_both_measure_and_counted(tmp_path):
    days = ["2010/10/21", "2010/10/22", "2010/10/23"]
    write_header_values(tmp_path, [(t, 0.2, "G") for d in days[:2] for t in hours(d)], sensor="Old")
    write_header_values(tmp_path, [(t, 0.4, "G") for d in days[1:] for t in hours(d)], sensor="New")
    ds = open_stations(tmp_path)
    np.testing.assert_allclose(ds["sm"].values, [[0.2, 0.3, 0.4]], rtol=1e-6)
    assert ds["days_overlapping"].values.tolist() == [1]
    assert ds["hours_read"].values.tolist() == [96]
    assert [r["sensor"] for r in json.loads(str(ds["sensors"].values[0]))] == ["New", "Old"]
    # Two sensors at 5 cm weigh as much as one at 8 cm.
    write_header_values(tmp_path, [(t, 0.9, "G") for d in days for t in hours(d)], depth=(0.08, 0.08))
    mean = open_stations(tmp_path, depth_rule="mean")
    np.testing.assert_allclose(mean["sm"].values, [[0.55, 0.6, 0.65]], rtol=1e-6)


# ---- disorder


def test_duplicates_disorder_and_gaps_are_counted_and_change_no_mean(tmp_path):
    rows = [(t, 0.2, "G") for t in hours()]
    write_header_values(tmp_path / "tidy", rows)
    untidy = rows[12:] + rows[:12]  # one step back
    untidy += [rows[3], (f"{DAY} 05:30", 0.2, "G")]  # 11:00 is followed by 03:00: a second step back
    del untidy[5]  # 17:00
    write_header_values(tmp_path / "untidy", untidy)
    period = ("2010-10-21", "2010-10-21")
    tidy, ds = (open_stations(tmp_path / n, period=period) for n in ("tidy", "untidy"))
    np.testing.assert_allclose(ds["sm"].values, tidy["sm"].values, rtol=1e-6)
    counts = {n: int(ds[n].values[0]) for n in TALLY}
    expected = dict.fromkeys(TALLY, 0) | {
        "hours_read": 25,
        "rows_same_time": 1,
        "rows_same_hour": 2,
        "rows_unsorted": 2,
        "hours_without_row": 1,
    }
    assert counts == expected
    assert {n: int(tidy[n].values[0]) for n in TALLY} == dict.fromkeys(TALLY, 0) | {"hours_read": 24}


def test_rows_outside_the_period_are_counted(tmp_path):
    write_header_values(tmp_path, [(t, 0.2, "G") for d in ("2010/10/21", "2010/10/22") for t in hours(d)])
    ds = open_stations(tmp_path, period=("2010-10-22", "2010-10-25"))
    assert ds["rows_outside_period"].values.tolist() == [24]
    assert ds["hours_read"].values.tolist() == [24]
    assert int(ds["sm"].notnull().sum()) == 1


def test_opening_is_lazy_and_one_task_reads_a_station(profile):
    with dask.config.set(scheduler=forbid):
        ds = open_stations(profile, depth_rule="mean")
    assert ds["sm"].chunks == ((1,), (2,))
    loads = [k for k in ds["sm"].__dask_graph__().to_dict() if "_load_station" in str(k)]
    assert len(loads) == 1
    # A task must travel to another process.
    pickle.dumps(ds["sm"].__dask_graph__())
    np.testing.assert_allclose(ds["sm"].compute(scheduler="synchronous").values, [[0.3, 0.2]], rtol=1e-6)


# ---- real files


@pytest.fixture(scope="module")
def old_files(data):
    return data / "ismn" / "ismn_2007_2013"


def slow_daily(times, values, share=0.5):
    """Daily means of hours by plain loops."""
    by_hour = {}
    for time, value in zip(times, values, strict=True):
        by_hour.setdefault(pd.Timestamp(time).floor("h"), []).append(value)
    by_day = {}
    for hour, several in by_hour.items():
        by_day.setdefault(hour.normalize(), []).append(np.mean(several))
    return {day: np.mean(v) for day, v in by_day.items() if len(v) >= share * 24}


def rows_of(path):
    return [line.split() for line in path.read_bytes().decode().splitlines() if line.strip()]


def test_real_ceop_file_is_read_at_every_depth(old_files):
    path = next((old_files / "format_ceop").rglob("*.stm"))
    rows = rows_of(path)
    assert len(rows) == 169
    for depth in ("0.05", "0.10", "0.20", "0.30"):
        mine = [r for r in rows if r[11] == depth]
        d = float(depth)
        ds = open_stations(
            old_files / "format_ceop",
            depth_m=(d, d),
            flags=("U",),
            min_valid_share=0.25,
            variables=("soil_temperature",),
        )
        assert ds["station"].values.tolist() == ["SMOSMANIA/Narbonne"]
        assert int(ds["hours_read"].sum()) == len(mine)
        for name, at in (("sm", 14), ("soil_temperature", 12)):
            good = [r for r in mine if r[at + 1] == "U"]
            expected = slow_daily([f"{r[2]} {r[3]}" for r in good], [float(r[at]) for r in good], 0.25)
            got = ds[name].isel(station=0).to_series().dropna()
            assert list(got.index) == sorted(expected)
            np.testing.assert_allclose(got.to_numpy(), [expected[t] for t in got.index], rtol=1e-5)


def test_real_formats_of_one_series_agree_and_the_ismn_package_reads_the_same(old_files):
    pytest.importorskip("ismn")
    from ismn.filehandlers import DataFile

    separate, header = (
        open_stations(old_files / n, flags=("U",)).compute() for n in ("format_ceop_sep", "format_header_values")
    )
    assert separate["station"].values.tolist() == header["station"].values.tolist() == ["SMOSMANIA/Narbonne"]
    np.testing.assert_array_equal(separate["sm"].values, header["sm"].values)
    assert int(separate["hours_read"].sum()) == int(header["hours_read"].sum()) == 741
    assert int(header["sm"].notnull().sum()) == 31
    path = next((old_files / "format_ceop_sep").rglob("*.stm"))
    package = DataFile(path.parents[1], f"{path.parent.name}/{path.name}").read_data()
    good = package[package["soil_moisture_flag"] == "U"]["soil_moisture"]
    expected = slow_daily(good.index, good.to_numpy())
    np.testing.assert_allclose(separate["sm"].values[0], [expected[t] for t in separate["time"].values], rtol=1e-5)


def test_real_archive_of_every_format_counts_its_hours(old_files, tmp_path):
    folder = tmp_path / "all"
    for name in ("multinetwork", "format_ceop", "format_ceop_sep", "format_header_values"):
        shutil.copytree(old_files / name, folder / name, copy_function=shutil.copyfile)
    shutil.copyfile(old_files / "malformed" / "mal_formed_file.txt", folder / "mal_formed_file.stm")
    with pytest.warns(SmgeoWarning, match=r"1 file\(s\).*mal_formed_file\.stm: not readable.*neither"):
        ds = open_stations(folder, depth_m=(0.0, 0.06), flags=("G", "U"))
    assert ds.sizes["station"] == 9
    assert list(json.loads(ds.attrs["left_out"])) == ["mal_formed_file.stm"]
    ds = ds.compute(scheduler="synchronous")
    narbonne = ds.sel(station="SMOSMANIA/Narbonne")
    # Twice the same January in two formats, then two days of CEOP, of whose 169 rows 42 are at 5 cm.
    assert int(narbonne["hours_read"]) == 741 * 2 + 42
    assert int(narbonne["days_overlapping"]) == 31
    assert {n: int(ds["hours_read"].sel(station=n)) for n in ("SCAN/Abrams", "MAQU/CST-01")} == {
        "SCAN/Abrams": 55167,
        "MAQU/CST-01": 15927,
    }
    expected = [r for r in rows_of(next(folder.rglob("SCAN_SCAN_Abrams*"))) if len(r) > 3 and r[3] in ("U", "G")]
    slow = slow_daily([f"{r[0]} {r[1]}" for r in expected], [float(r[2]) for r in expected])
    got = ds["sm"].sel(station="SCAN/Abrams").to_series().dropna()
    assert len(got) == len(slow)
    np.testing.assert_allclose(got.to_numpy(), [slow[t] for t in got.index], rtol=1e-5)


# ---- flags, elevations, names and times that archives really have

RISMA = ["OK,OK", "Too cold,OK", "X >= 1.5,OK", 'a "quoted" word', '"', "", "M"]


def header_values(root, rows, elevation="100.00", sensor="Probe A", name="Probe-A"):
    lines = [f"NET NET A 45.00000 3.00000 {elevation} 0.05 0.05 {sensor}", *rows]
    return write(root / "NET" / "A" / f"NET_NET_A_sm_0.050000_0.050000_{name}_20101021_20101022.stm", lines)


def test_flags_of_providers_contain_blanks_and_quotation_marks_in_all_formats(tmp_path):
    values = [round(0.1 + 0.01 * i, 3) for i in range(24)]
    flags = [RISMA[i % len(RISMA)] for i in range(24)]
    each = list(zip(hours(), values, flags, strict=True))
    header_values(tmp_path / "a", [f"{t} {v} G {f}" for t, v, f in each])
    place = "NET NET A 45.00000 3.00000 100.00"
    lines = [f"{t} {t} {place} 0.05 0.05 {v} G {f}" for t, v, f in each]
    write(tmp_path / "b" / "NET_NET_A_sm_0.050000_0.050000_Probe-A_20101021_20101022.stm", lines)
    lines = [ceop_line(t, 0.05, 5.0, v, flags="GG") + f for t, v, f in each]
    write(tmp_path / "c" / "NET_NET_A_20101021_20101022.stm", lines)
    for form in "abc":
        ds = open_stations(tmp_path / form).compute()
        assert ds["hours_read"].values.tolist() == [24]
        assert ds["files_unreadable"].values.tolist() == [0]
        np.testing.assert_allclose(ds["sm"].values, [[np.mean(values)]], rtol=1e-5)


def test_flags_with_blanks_are_read_as_by_the_package_of_the_network(tmp_path):
    filehandlers = pytest.importorskip("ismn.filehandlers")
    rows = [f"{t} {0.2 + 0.001 * i} G {RISMA[i % 3]}" for i, t in enumerate(hours())]
    path = header_values(tmp_path, rows)
    truth = filehandlers.DataFile(tmp_path, str(path.relative_to(tmp_path))).read_data()["soil_moisture"].mean()
    np.testing.assert_allclose(open_stations(tmp_path)["sm"].values, [[truth]], rtol=1e-6)


@pytest.mark.parametrize(
    ("word", "elevation"),
    [("-99.9", np.nan), ("-9999.00", np.nan), ("-999", np.nan), ("-12.5", -12.5), ("248.2", 248.2)],
)
def test_unknown_elevations_are_missing(tmp_path, word, elevation):
    header_values(tmp_path, [f"{t} 0.2 G M" for t in hours()], elevation=word)
    np.testing.assert_equal(open_stations(tmp_path)["station_elevation"].values, [elevation])


def test_a_slash_in_the_name_of_a_sensor(tmp_path):
    folder = tmp_path / "NET" / "A" / "NET_NET_A_sm_0.050000_0.050000_CS655"
    lines = ["NET NET A 45.00000 3.00000 100.00 0.05 0.05 CS655/A", *(f"{t} 0.2 G M" for t in hours())]
    write(folder / "A_20101021_20101022.stm", lines)
    with zipfile.ZipFile(tmp_path / "slash.zip", "w") as archive:
        archive.write(
            folder / "A_20101021_20101022.stm", "NET/A/NET_NET_A_sm_0.050000_0.050000_CS655/A_20101021_20101022.stm"
        )
    for path in (tmp_path, tmp_path / "slash.zip"):
        ds = open_stations(path)
        np.testing.assert_allclose(ds["sm"].values, [[0.2]], rtol=1e-6)
        assert json.loads(ds["sensors"].values[0])[0]["sensor"] == "CS655/A"


def test_rows_in_reverse_order_give_all_days(tmp_path):
    times = [*hours(), *hours("2010/10/22")]
    header_values(tmp_path, [f"{t} {0.1 if '21 ' in t else 0.3} G M" for t in reversed(times)])
    ds = open_stations(tmp_path)
    assert [str(t)[:10] for t in ds["time"].values] == ["2010-10-21", "2010-10-22"]
    np.testing.assert_allclose(ds["sm"].values, [[0.1, 0.3]], rtol=1e-6)


@pytest.mark.parametrize("word", ["0001/01/01", "9999/12/31", "2010/02/31"])
@pytest.mark.parametrize("at", [0, 11, 23])
def test_an_impossible_date_is_one_bad_row(tmp_path, word, at):
    rows = [f"{t} 0.2 G M" for t in hours()]
    rows[at] = f"{word} 00:00 0.9 G M"
    header_values(tmp_path, rows)
    ds = open_stations(tmp_path).compute()
    assert [str(t)[:10] for t in ds["time"].values] == ["2010-10-21"]
    np.testing.assert_allclose(ds["sm"].values, [[0.2]], rtol=1e-6)
    assert ds["rows_bad_time"].values.tolist() == [1]
    assert ds["hours_read"].values.tolist() == [23]
