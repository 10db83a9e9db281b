"""ISMN archives: hours into days by hand, depths, flags, broken files, and two real archives."""

from __future__ import annotations

import json
import shutil
import warnings
import zipfile

import dask
import numpy as np
import pandas as pd
import pytest

from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.sources import open_stations

pytest.importorskip("ismn")

STATIC_HEADER = (
    "quantity_name;unit;depth_from[m];depth_to[m];value;description;quantity_source_name;quantity_source_description;"
    "quantity_source_provider;quantity_source_version;quantity_source_resolution;quantity_source_timerange;quantity_source_url;\n"
)


def forbid(*args, **kwargs):
    raise AssertionError("computed, where nothing must be")


def write_stm(
    root, station, hours, *, network="NET", variable="sm", depth=0.05, place=(45.0, 3.0, 100.0), sensor="Probe"
):
    """One header+values file; `hours` are (time, value, flag)."""
    folder = root / network / station
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{network}_{network}_{station}_{variable}_{depth:.6f}_{depth:.6f}_{sensor}_20200101_20200103.stm"
    lines = [
        f"{network} {network} {station} {place[0]:.5f} {place[1]:.5f} {place[2]:.1f} {depth:.4f} {depth:.4f} {sensor}"
    ]
    lines += [f"{pd.Timestamp(t):%Y/%m/%d %H:%M} {value} {flag} 0" for t, value, flag in hours]
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


def day(date, values, flags="G"):
    """Hours 0, 1, 2 ... of a day."""
    flags = [flags] * len(values) if isinstance(flags, str) else flags
    return [(f"{date} {h:02d}:00", v, f) for h, (v, f) in enumerate(zip(values, flags, strict=True))]


def write_static(root, station, rows, network="NET"):
    lines = [f"{name};% weight;{top:.2f};{bottom:.2f};{value};;HWSD;;;;;;;" for name, top, bottom, value in rows]
    # Every download has these two as well.
    lines += [
        "land cover classification;CCI classes;;;10;;CCI_landcover_2000;;;;;;;",
        "climate classification;;;;Cfb;;koeppen_geiger_2007;;;;;;;",
    ]
    (root / network / station / f"{network}_{network}_{station}_static_variables.csv").write_text(
        STATIC_HEADER + "\n".join(lines) + "\n"
    )


def zipped(folder):
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


@pytest.fixture
def archive(tmp_path):
    """Station A: a full day 0.1/0.3 by halves, a day of 12 hours, a day of 11. Station B: one value, always."""
    root = tmp_path / "archive"
    hours = day("2020-01-01", [0.1] * 12 + [0.3] * 12)
    hours += day("2020-01-02", [0.2] * 11 + [0.8])
    hours += day("2020-01-03", [0.4] * 11)
    write_stm(root, "A", hours, place=(45.5, 3.25, 120.0))
    write_stm(
        root,
        "B",
        [h for d in ("2020-01-01", "2020-01-02", "2020-01-03") for h in day(d, [0.25] * 24)],
        place=(46.0, -4.5, 7.0),
    )
    return root


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_daily_means_by_hand(archive, form):
    ds = open_stations(archive if form == "folder" else zipped(archive))
    assert ds["sm"].dims == ("station", "time")
    assert ds["sm"].dtype == "float32"
    assert ds["station"].values.tolist() == ["NET/A", "NET/B"]
    assert [str(t)[:10] for t in ds["time"].values] == ["2020-01-01", "2020-01-02", "2020-01-03"]
    # 12 of 24 hours are half of a day, 11 are not: (12 * 0.1 + 12 * 0.3) / 24; (11 * 0.2 + 0.8) / 12.
    np.testing.assert_allclose(ds["sm"].values, [[0.2, 0.25, np.nan], [0.25] * 3], rtol=1e-6)
    assert ds["latitude"].values.tolist() == [45.5, 46.0]
    assert ds["longitude"].values.tolist() == [3.25, -4.5]
    assert ds["station_elevation"].values.tolist() == [120.0, 7.0]
    assert ds["network"].values.tolist() == ["NET", "NET"]
    np.testing.assert_allclose(ds["sensor_depth"].values, [0.05, 0.05])
    assert ds["hours_read"].values.tolist() == [24 + 12 + 11, 72]
    assert ds["hours_flagged"].values.tolist() == [0, 0]
    assert ds["days_incomplete"].values.tolist() == [1, 0]
    assert (ds["sm"].attrs["units"], ds["sm"].attrs["kind"]) == ("m3 m-3", "target")
    assert json.loads(ds.attrs["left_out"]) == {}


@pytest.mark.parametrize(("share", "third_day"), [(0.0, 0.4), (11 / 24, 0.4), (0.5, np.nan), (1.0, np.nan)])
def test_share_of_valid_hours_a_day_needs(archive, share, third_day):
    ds = open_stations(archive, min_valid_share=share)
    np.testing.assert_allclose(ds["sm"].sel(station="NET/A").values[2], third_day, rtol=1e-6)


def test_share_one_needs_all_24_hours(archive):
    values = open_stations(archive, min_valid_share=1.0)["sm"].sel(station="NET/A").values
    np.testing.assert_allclose(values, [0.2, np.nan, np.nan], rtol=1e-6)


def test_hour_with_several_flags_needs_all_of_them(tmp_path):
    flags = ["G"] * 12 + ["C03"] * 4 + ["D01"] * 4 + ["C03,D01"] * 4
    write_stm(tmp_path, "A", day("2020-01-01", [0.1] * 12 + [0.2] * 4 + [0.3] * 4 + [0.4] * 4, flags))
    expected = {
        ("G",): (0.1, 12),
        ("G", "C03"): ((12 * 0.1 + 4 * 0.2) / 16, 8),
        ("G", "D01"): ((12 * 0.1 + 4 * 0.3) / 16, 8),
        ("G", "C03", "D01"): ((12 * 0.1 + 4 * 0.2 + 4 * 0.3 + 4 * 0.4) / 24, 0),
    }
    for wanted, (mean, removed) in expected.items():
        ds = open_stations(tmp_path, flags=wanted)
        np.testing.assert_allclose(ds["sm"].values, [[mean]], rtol=1e-6)
        assert ds["hours_flagged"].values.tolist() == [removed]
    assert np.isnan(open_stations(tmp_path, flags=("C03",))["sm"].values).all()


def test_two_values_of_one_hour_are_one_hour(tmp_path):
    # 11 hours, one of them twice: the day stays incomplete at half, and the pair counts as its mean.
    hours = [*day("2020-01-01", [0.2] * 11), ("2020-01-01 10:30", 0.4, "G")]
    write_stm(tmp_path, "A", hours)
    assert np.isnan(open_stations(tmp_path)["sm"].values).all()
    mean = (10 * 0.2 + 0.3) / 11
    np.testing.assert_allclose(open_stations(tmp_path, min_valid_share=0.4)["sm"].values, [[mean]], rtol=1e-6)


def test_same_time_given_twice_is_one_hour(tmp_path):
    write_stm(tmp_path, "A", [*day("2020-01-01", [0.2] * 11), ("2020-01-01 10:00", 0.4, "G")])
    assert np.isnan(open_stations(tmp_path)["sm"].values).all()


def test_bad_flag_of_a_doubled_hour_leaves_the_good_one(tmp_path):
    write_stm(tmp_path, "A", [*day("2020-01-01", [0.2] * 12), ("2020-01-01 11:30", 0.9, "D01")])
    np.testing.assert_allclose(open_stations(tmp_path)["sm"].values, [[0.2]], rtol=1e-6)


def test_period_gives_all_its_days(archive):
    ds = open_stations(archive, period=("2019-12-31", "2020-01-02"))
    assert [str(t)[:10] for t in ds["time"].values] == ["2019-12-31", "2020-01-01", "2020-01-02"]
    np.testing.assert_allclose(ds["sm"].sel(station="NET/A").values, [np.nan, 0.2, 0.25], rtol=1e-6)
    assert ds["hours_read"].sel(station="NET/A").values == 36


def test_sensor_nearest_to_the_middle_of_the_range(tmp_path):
    for depth, value in ((0.02, 0.2), (0.06, 0.6), (0.10, 0.9), (0.20, 0.7)):
        write_stm(tmp_path, "A", day("2020-01-01", [value] * 24), depth=depth)
    chosen = {
        (0.0, 0.10): (0.06, 0.6),  # 0.06 is nearest to 0.05
        (0.0, 0.04): (0.02, 0.2),
        (0.15, 0.25): (0.20, 0.7),
        (0.02, 0.10): (0.06, 0.6),
        (0.06, 0.10): (0.06, 0.6),  # 0.06 and 0.10 are as near to 0.08: the shallower
    }
    for depth_m, (depth, value) in chosen.items():
        ds = open_stations(tmp_path, depth_m=depth_m)
        np.testing.assert_allclose(ds["sensor_depth"].values, [depth], rtol=1e-6)
        np.testing.assert_allclose(ds["sm"].values, [[value]], rtol=1e-6)


def test_two_sensors_at_one_depth_are_averaged(tmp_path):
    write_stm(tmp_path, "A", day("2020-01-01", [0.2] * 24) + day("2020-01-02", [0.2] * 24), sensor="One")
    write_stm(tmp_path, "A", day("2020-01-01", [0.4] * 24), sensor="Two")
    np.testing.assert_allclose(open_stations(tmp_path)["sm"].values, [[0.3, 0.2]], rtol=1e-6)


def test_station_without_a_sensor_in_range_is_named(archive):
    write_stm(archive, "DEEP", day("2020-01-01", [0.2] * 24), depth=0.5)
    ds = open_stations(archive)
    assert ds["station"].values.tolist() == ["NET/A", "NET/B"]
    assert list(json.loads(ds.attrs["left_out"])) == ["NET/DEEP"]


def test_depth_that_no_station_has_lists_those_there_are(archive):
    write_stm(archive, "A", day("2020-01-01", [0.2] * 24), depth=0.4)
    with pytest.raises(SmgeoError) as error:
        open_stations(archive, depth_m=(1.0, 2.0))
    for words in ("between 1 and 2 m", "0.05, 0.4 m", "target.depth_m"):
        assert words in str(error.value)


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_malformed_file_is_left_out_named_and_counted(archive, form):
    bad = archive / "NET" / "A" / "NET_NET_C_sm_0.050000_0.050000_Probe_20200101_20200103.stm"
    bad.write_text("no good data here")
    path = archive if form == "folder" else zipped(archive)
    with pytest.warns(SmgeoWarning, match=r"1 file\(s\).*NET_NET_C_sm"):
        ds = open_stations(path)
    assert ds["station"].values.tolist() == ["NET/A", "NET/B"]
    assert any("NET_NET_C_sm" in name for name in json.loads(ds.attrs["left_out"]))


def test_values_that_break_off_do_not_take_the_study_down(archive):
    """A good header, and a body cut in the middle of a line: read what there is, or leave the file out with its name."""
    path = write_stm(archive, "C", day("2020-01-01", [0.3] * 24))
    path.write_text(path.read_text() + "2020/01/0")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        values = open_stations(archive)["sm"].load()
    if "NET/C" in values["station"].values:
        np.testing.assert_allclose(values.sel(station="NET/C", time="2020-01-01").values, 0.3, rtol=1e-6)
    else:
        assert any("NET_NET_C" in str(w.message) for w in caught)
    np.testing.assert_allclose(values.sel(station="NET/B").values, [0.25] * 3, rtol=1e-6)


@pytest.mark.parametrize("member", ["../evil.stm", "/etc/evil.stm", "NET\\..\\..\\evil.stm", "C:/evil.stm"])
def test_zip_member_outside_is_refused_before_anything_is_read(archive, member, monkeypatch):
    path = zipped(archive)
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr(member, "evil")
    monkeypatch.setattr(zipfile.ZipFile, "open", forbid)
    monkeypatch.setattr(zipfile.ZipFile, "extractall", forbid)
    with pytest.raises(SmgeoError, match="outside"):
        open_stations(path)


def test_static_variables_and_other_series(archive):
    write_static(
        archive,
        "A",
        [("clay fraction", 0.3, 1.0, 9.0), ("clay fraction", 0.0, 0.3, 40.0), ("sand fraction", 0.0, 0.3, 20.5)],
    )
    write_static(archive, "B", [("clay fraction", 0.0, 0.3, 10.0), ("sand fraction", 0.0, 0.3, 70.0)])
    write_stm(archive, "A", day("2020-01-01", [5.0] * 12 + [15.0] * 12), variable="ts")
    write_stm(archive, "A", day("2020-01-01", [0.5] * 12), variable="p", depth=-1.0)
    ds = open_stations(archive, variables=("clay", "sand", "elevation", "soil_temperature", "precipitation"))
    assert ds["clay"].dims == ("station",)
    assert ds["clay"].values.tolist() == [40.0, 10.0]  # the layer at the surface
    assert ds["sand"].values.tolist() == [20.5, 70.0]
    assert ds["elevation"].values.tolist() == [120.0, 7.0]
    np.testing.assert_allclose(ds["soil_temperature"].values, [[10.0, np.nan, np.nan], [np.nan] * 3], rtol=1e-6)
    # 12 of 24 hours of 0.5 mm: the mean hour times 24.
    np.testing.assert_allclose(ds["precipitation"].values, [[12.0, np.nan, np.nan], [np.nan] * 3], rtol=1e-6)


def test_climate_is_the_newest_class_of_the_archive_and_empty_without_one(archive):
    write_static(archive, "A", [])
    assert open_stations(archive)["climate"].values.tolist() == ["Cfb", ""]
    write_static(archive, "B", [])
    (table,) = (archive / "NET" / "B").glob("*_static_variables.csv")
    newer = "climate classification;;;;Dfb;Cold;koeppen_geiger_2017;;;;;;;\n"
    table.write_text(table.read_text() + newer + newer.replace("Dfb", "None").replace("koeppen_geiger_2017", "insitu"))
    for path in (archive, zipped(archive)):
        assert open_stations(path)["climate"].values.tolist() == ["Cfb", "Dfb"]


def test_static_variables_of_a_station_without_them_are_missing_and_warned_about(archive):
    write_static(archive, "A", [("clay fraction", 0.0, 0.3, 40.0)])
    with pytest.warns(SmgeoWarning, match="NET/B"):
        ds = open_stations(archive, variables=("clay",))
    np.testing.assert_allclose(ds["clay"].values, [40.0, np.nan])


def test_only_the_networks_asked_for(archive):
    write_stm(archive, "X", day("2020-01-01", [0.9] * 24), network="OTHER")
    assert open_stations(archive, networks=("OTHER",))["station"].values.tolist() == ["OTHER/X"]
    assert open_stations(archive)["station"].values.tolist() == ["NET/A", "NET/B", "OTHER/X"]


def test_missing_archive_names_the_path(tmp_path):
    with pytest.raises(SmgeoError, match=r"nowhere\.zip not found"):
        open_stations(tmp_path / "nowhere.zip")


def test_file_that_is_no_archive(tmp_path):
    (tmp_path / "a.zip").write_text("text")
    with pytest.raises(SmgeoError, match="neither a folder nor a zip"):
        open_stations(tmp_path / "a.zip")


def test_unknown_variable_names_the_nearest(archive):
    with pytest.raises(SmgeoError, match="did you mean 'soil_temperature'"):
        open_stations(archive, variables=("soil_temprature",))


def test_opening_computes_nothing_and_has_one_task_a_station(archive):
    with dask.config.set(scheduler=forbid):
        ds = open_stations(archive)
        assert ds["sm"].chunks == ((1, 1), (3,))
    loads = [k for k in ds["sm"].__dask_graph__().to_dict() if "_load_station" in str(k)]
    assert len(loads) == 2


# ---- real archives


@pytest.fixture(scope="module")
def download(data):
    return data / "ismn" / "ISMN_DWD_SMOSMANIA_20240825_20250825.zip"


def test_real_archive_has_24_of_26_stations_and_names_the_others(download):
    with dask.config.set(scheduler=forbid):
        ds = open_stations(download)
    assert ds.sizes["station"] == 24
    left_out = json.loads(ds.attrs["left_out"])
    assert len(left_out) == 2
    assert not set(left_out) & set(ds["station"].values)
    names = {n.split("/")[0] for n in ds["station"].values}
    assert names == {"DWD", "SMOSMANIA"}
    # The archive's name ends on 25 August 2025, its last value at 5 cm on the 17th.
    assert [str(t)[:10] for t in ds["time"].values[[0, -1]]] == ["2024-08-25", "2025-08-17"]
    assert ds.sizes["time"] == 358


def test_real_texture_is_the_top_layer_of_the_archives_table(download):
    ds = open_stations(download, variables=("clay", "sand"))
    with zipfile.ZipFile(download) as opened:
        for station in ("DWD/Friesoythe-Altenoythe", "SMOSMANIA/Montaut"):
            member = next(
                m for m in opened.namelist() if m.startswith(f"{station}/") and m.endswith("static_variables.csv")
            )
            rows = [line.split(";") for line in opened.read(member).decode().splitlines()]
            for name in ("clay", "sand"):
                (value,) = [float(r[4]) for r in rows if r[0] == f"{name} fraction" and float(r[2]) == 0]
                assert float(ds[name].sel(station=station)) == value


def test_real_series_is_what_pandas_reads(download):
    ds = open_stations(download)
    station = next(s for s in ds["station"].values if s.startswith("DWD/"))
    with zipfile.ZipFile(download) as opened:
        depth = float(ds["sensor_depth"].sel(station=station))
        members = [m for m in opened.namelist() if m.startswith(f"{station}/") and f"_sm_{depth:.6f}_" in m]
        assert len(members) == 1
        lines = opened.read(members[0]).decode().splitlines()[1:]
    rows = [line.split() for line in lines]
    table = pd.DataFrame(
        {
            "time": pd.to_datetime([f"{r[0]} {r[1]}" for r in rows]),
            "sm": [float(r[2]) for r in rows],
            "flag": [r[3] for r in rows],
        }
    )
    good = table[table["flag"] == "G"].groupby(lambda i: table["time"][i].floor("h"))["sm"].mean()
    by_day = good.groupby(good.index.normalize())
    expected = by_day.mean()[by_day.size() >= 12].reindex(ds["time"].values)
    np.testing.assert_allclose(ds["sm"].sel(station=station).values, expected.to_numpy(), rtol=1e-5)
    assert int(ds["hours_read"].sel(station=station)) == len(table)
    assert int(ds["hours_flagged"].sel(station=station)) == int((table["flag"] != "G").sum())


def test_real_folder_of_mixed_formats_reads(data, tmp_path):
    source = data / "ismn" / "ismn_2007_2013"
    folder = tmp_path / "mixed"
    for name in ("multinetwork", "format_ceop", "format_ceop_sep"):
        shutil.copytree(source / name, folder / name, copy_function=shutil.copyfile)
    shutil.copyfile(source / "malformed" / "mal_formed_file.txt", folder / "mal_formed_file.stm")
    with pytest.warns(SmgeoWarning, match=r"mal_formed_file\.stm"):
        ds = open_stations(folder, depth_m=(0.0, 0.06), flags=("U", "G", "M"))
    found = set(ds["station"].values)
    assert {"SCAN/AAMU-jtg", "SCAN/Abrams", "SCAN/AdamsRanch#1", "MAQU/CST-01", "MAQU/CST-02"} <= found
    assert {"SOILSCAPE/node703", "SOILSCAPE/node414", "SOILSCAPE/node505"} <= found
    with_values = ds["sm"].isel(station=slice(0, 2)).load()
    assert bool(with_values.notnull().any("time").all())
    assert 0 <= float(with_values.min()) <= float(with_values.max()) < 1


def test_hours_outside_the_valid_range_are_flagged_and_a_file_broken_after_its_header_is_named(tmp_path):
    write_stm(tmp_path, "A", day("2020-01-01", [0.2] * 12 + [-9999.0] * 12))
    write_stm(tmp_path, "B", day("2020-01-01", [0.3] * 24))
    broken = next((tmp_path).rglob("*_B_*.stm"))
    lines = broken.read_text().splitlines()
    broken.write_text("\n".join([*lines[:5], "2020/01/01 garbage", *lines[5:]]) + "\n")
    ds = open_stations(tmp_path)
    with pytest.warns(SmgeoWarning, match="_B_"):
        ds = ds.compute(scheduler="synchronous")
    np.testing.assert_allclose(ds["sm"].values, [[0.2], [np.nan]], rtol=1e-6)
    assert ds["hours_flagged"].values.tolist() == [12, 0]
    assert ds["files_unreadable"].values.tolist() == [0, 1]
