"""Presets of tables: USCRN from its real files, and small files in the forms of the other networks; truth by hand."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pandas as pd
import pytest

from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.recipe.tables import preset_names
from smgeo.sources import open_stations


def days(ds):
    return [str(t)[:10] for t in ds["time"].values]


def places(folder, *stations):
    path = folder / "places.csv"
    path.write_text("station,latitude,longitude,utc_offset_hours\n" + "".join(f"{s},50,8,-7\n" for s in stations))
    return path


def test_uscrn_from_its_raw_files(data):
    ds = open_stations(data / "uscrn" / "uscrn_daily_2020.zip", kind="csv", preset="uscrn").compute()
    frames = []
    with zipfile.ZipFile(data / "uscrn" / "uscrn_daily_2020.zip") as archive:
        for name in archive.namelist():
            frames.append(pd.read_csv(io.BytesIO(archive.read(name)), sep=r"\s+", header=None, dtype={0: str, 1: str}))
    raw = pd.concat(frames)
    sm = raw[raw[18] > -99]
    assert ds.sizes["station"] == sm[0].nunique() == 111
    assert int(ds["sm"].notnull().sum()) == len(sm) == 33_924
    assert float(ds["sm"].mean()) == pytest.approx(sm[18].mean(), rel=1e-6)
    assert len(json.loads(ds.attrs["left_out"])) == 155 - 111
    station = sorted(sm[0].unique())[7]
    one = raw[raw[0] == station].set_index(1)
    got = ds.sel(station=f"USCRN/{station}")
    for name, column, fill in (
        ("sm", 18, -99.0),
        ("precipitation", 9, -9999.0),
        ("soil_temperature", 23, -9999.0),
        ("temperature", 14, -9999.0),
    ):
        # 80.5 degC of a broken sensor is outside the catalogue's range.
        expected = one[column].where((one[column] != fill) & (one[column] != 80.5)).to_numpy("float32")
        np.testing.assert_array_equal(got[name].sel(time=pd.to_datetime(one.index)).values, expected, err_msg=name)
    assert float(got["longitude"]) == one[3].iloc[0]
    assert json.loads(str(got["sensors"].values)) == [{"sensor": "SOIL_MOISTURE_5_DAILY", "depth_m": [0.05, 0.05]}]
    deep = open_stations(data / "uscrn" / "uscrn_daily_2020.zip", kind="csv", preset="uscrn", depth_m=(0.4, 0.6))
    assert int(deep["sm"].notnull().sum()) == int((raw[21] > -99).sum())


def test_awdb_reports_of_scan(tmp_path):
    text = (
        "#------------------------------------------------- WARNING --------\n# The data you have obtained are subject to revision.\n#\n"
        "Date,Station Id,Station Name,Soil Moisture Percent -2in (pct) Start of Day Values,Soil Moisture Percent -2in (pct) Mean of Hourly Values,"
        "Soil Moisture Percent -8in (pct) Start of Day Values,Precipitation Increment (in),Soil Temperature Observed -2in (degF) Start of Day Values\n"
        "2020-01-01,2057,Ames,12.5,13.0,30.1,0.5,50\n2020-01-02,2057,Ames,,,30.2,0,32\n"
    )
    (tmp_path / "report.csv").write_text(text)
    ds = open_stations(tmp_path / "report.csv", "csv", preset="scan", stations=places(tmp_path, "2057")).compute()
    assert ds["station"].values.tolist() == ["SCAN/2057"]
    np.testing.assert_allclose(ds["sm"].values, [[0.13, np.nan]], rtol=1e-6)
    np.testing.assert_allclose(ds["precipitation"].values, [[12.7, 0]], rtol=1e-6)
    np.testing.assert_allclose(ds["soil_temperature"].values, [[10, 0]], atol=1e-6)
    assert json.loads(ds["sensors"].values[0])[0]["depth_m"] == [0.0508, 0.0508]
    snow = open_stations(
        tmp_path / "report.csv", "csv", preset="snotel", stations=places(tmp_path, "2057"), depth_m=(0.1, 0.3)
    )
    np.testing.assert_allclose(snow["sm"].values, [[0.301, 0.302]], rtol=1e-6)


def half_hours():
    """Stamps of FLUXNET, with the number of the UTC day of a site 7 h behind UTC."""
    stamps = pd.date_range("2020-06-01", "2020-06-03 23:30", freq="30min")
    number = ((stamps + pd.Timedelta(hours=7)).normalize() - pd.Timestamp("2020-05-31")).days
    return [
        (f"{t:%Y%m%d%H%M}", f"{t + pd.Timedelta(minutes=30):%Y%m%d%H%M}", n)
        for t, n in zip(stamps, number, strict=True)
    ]


@pytest.mark.parametrize("zipped", [False, True])
def test_fluxnet_half_hours_of_local_time(tmp_path, zipped):
    lines = ["TIMESTAMP_START,TIMESTAMP_END,P_F,SWC_F_MDS_1,SWC_F_MDS_1_QC"]
    lines += [f"{a},{b},0.5,{10 * n},0" for a, b, n in half_hours()]
    lines[5] = lines[5].replace(",10,0", ",90,2")  # filled, not measured
    lines[6] = lines[6].replace(",10,0", ",-9999,0")
    name = "FLX_US-Xyz_FLUXNET2015_FULLSET_HH_2020-2020_1-4.csv"
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n")
    if zipped:
        with zipfile.ZipFile(tmp_path / "FLX_US-Xyz_FLUXNET2015_FULLSET_2020-2020_1-4.zip", "w") as archive:
            archive.write(path, name)
            archive.writestr(
                "FLX_US-Xyz_FLUXNET2015_FULLSET_DD_2020-2020_1-4.csv", "TIMESTAMP,SWC_F_MDS_1\n20200601,99\n"
            )
        path = tmp_path / "FLX_*.zip"
    ds = open_stations(path, "csv", preset="fluxnet", stations=places(tmp_path, "US-Xyz")).compute()
    assert ds["station"].values.tolist() == ["FLUXNET/US-Xyz"]
    assert days(ds) == ["2020-06-01", "2020-06-02", "2020-06-03", "2020-06-04"]
    np.testing.assert_allclose(ds["sm"].values, [[0.1, 0.2, 0.3, 0.4]], rtol=1e-6)
    # The first and the last day in UTC are not whole.
    np.testing.assert_array_equal(ds["precipitation"].values, [[np.nan, 24, 24, np.nan]])


def test_local_times_without_an_offset_are_announced(tmp_path):
    path = tmp_path / "AMF_US-Xyz_BASE_HH_1-5.csv"
    lines = ["# Site: US-Xyz", "# Version: 1-5", "TIMESTAMP_START,TIMESTAMP_END,SWC_1_1_1,TS_1_1_1,P"]
    path.write_text("\n".join([*lines, *(f"{a},{b},{10 * n},{n},-9999" for a, b, n in half_hours())]) + "\n")
    (tmp_path / "p.csv").write_text("SITE_ID,LOCATION_LAT,LOCATION_LONG\nUS-Xyz,50,8\n")
    options = {"preset": "ameriflux", "stations": tmp_path / "p.csv"}
    ds = open_stations(path, "csv", utc_offset_hours=-7, **options).compute()
    np.testing.assert_allclose(ds["sm"].values, [[0.1, 0.2, 0.3, 0.4]], rtol=1e-6)
    np.testing.assert_allclose(ds["soil_temperature"].values, [[1, 2, 3, 4]], rtol=1e-6)
    with pytest.warns(SmgeoWarning, match="utc_offset_hours"):
        open_stations(path, "csv", **options)


def test_icos_and_cosmos_uk(tmp_path):
    icos = tmp_path / "ICOSETC_BE-Bra_METEO_L2.csv"
    icos.write_text(
        "TIMESTAMP_START,TIMESTAMP_END,SWC_1,TS_1\n" + "".join(f"{a},{b},{10 * n},{n}\n" for a, b, n in half_hours())
    )
    ds = open_stations(icos, "csv", preset="icos", stations=places(tmp_path, "BE-Bra")).compute()
    assert ds["station"].values.tolist() == ["ICOS/BE-Bra"]
    np.testing.assert_allclose(ds["sm"].values, [[0.1, 0.2, 0.3, 0.4]], rtol=1e-6)
    folder = tmp_path / "cosmos"
    folder.mkdir()
    (folder / "COSMOS-UK_ALIC1_HydroSoil_Daily_2015-2023.csv").write_text(
        "DATE_TIME,SITE_ID,PRECIP,COSMOS_VWC\n2020-01-01 00:00:00,ALIC1,1.5,45.5\n2020-01-02 00:00:00,ALIC1,0,-9999\n"
    )
    (folder / "COSMOS-UK_ALIC1_HydroSoil_Daily_2015-2023_Flags.csv").write_text(
        "DATE_TIME,SITE_ID,COSMOS_VWC_FLAG\n2020-01-01,ALIC1,E\n"
    )
    (tmp_path / "meta.csv").write_text(
        "SITE_NAME,SITE_ID,LATITUDE,LONGITUDE,ALTITUDE\nAlice Holt,ALIC1,51.15,-0.86,80\n"
    )
    uk = open_stations(folder, "csv", preset="cosmos-uk", stations=tmp_path / "meta.csv").compute()
    assert uk["station"].values.tolist() == ["COSMOS-UK/ALIC1"]
    np.testing.assert_allclose(uk["sm"].values, [[0.455, np.nan]], rtol=1e-6)
    np.testing.assert_allclose(uk["precipitation"].values, [[1.5, 0]], rtol=1e-6)
    assert uk["station_elevation"].item() == 80


def test_toa5_of_a_logger(tmp_path):
    rows = [
        f'"{t:%Y-%m-%d %H:%M:%S}",{i},{0.1 * t.day if t.hour else 0.1 * (t.day - 1):.2f},0.1'
        for i, t in enumerate(pd.date_range("2020-01-01 01:00", periods=48, freq="h"))
    ]
    rows[3] = rows[3].rsplit(",", 2)[0] + ',"NAN",0.1'
    head = [
        '"TOA5","Meadow 1","CR1000X","12345","CR1000X.Std.03.02","CPU:soil.CR1X","54321","Hourly"',
        '"TIMESTAMP","RECORD","VWC_5cm_Avg","Rain_mm_Tot"', '"TS","RN","m^3/m^3","mm"', '"","","Avg","Tot"',
    ]  # fmt: skip
    path = tmp_path / "CR1000X_Hourly.dat"
    path.write_text("\r\n".join([*head, *rows]) + "\r\n")
    columns = {
        "sm": {"VWC_5cm_Avg": 0.05}, "precipitation": "Rain_mm_Tot", "latitude": {"value": 50.1}, "longitude": {"value": 8.2},
    }  # fmt: skip
    ds = open_stations(path, "csv", preset="campbell-toa5", columns=columns, utc_offset_hours=0).compute()
    assert ds["station"].values.tolist() == ["LOGGER/Meadow 1"]
    assert days(ds) == ["2020-01-01", "2020-01-02"]
    np.testing.assert_allclose(ds["sm"].values, [[0.1, 0.2]], rtol=1e-5)  # midnight closes its day
    np.testing.assert_allclose(ds["precipitation"].values, [[2.4, 2.4]], rtol=1e-5)
    assert (ds["latitude"].item(), ds["longitude"].item()) == (50.1, 8.2)
    with pytest.raises(SmgeoError, match="does not name the column of the target 'sm'"):
        open_stations(path, "csv", preset="campbell-toa5", columns={**columns, "sm": None}, utc_offset_hours=0)


def test_an_unknown_preset_lists_those_there_are():
    with pytest.raises(SmgeoError, match=r"unknown preset 'uscn'; did you mean 'uscrn'\?"):
        open_stations("x.csv", "csv", preset="uscn")
    expected = {"uscrn", "scan", "snotel", "fluxnet", "ameriflux", "cosmos-uk", "campbell-toa5", "icos"}
    assert expected <= set(preset_names())
    with pytest.raises(SmgeoError, match="ameriflux, campbell-toa5"):
        open_stations("x.csv", "csv", preset="zzz")


def test_a_key_has_precedence_over_its_preset(tmp_path):
    (tmp_path / "CRND0103-2020-1.txt").write_text(
        "1 20200101 0 8 50 " + "0 " * 13 + "0.1 0.2 0.3 0.4 0.5 " + "0 " * 5 + "\n"
    )
    options = {"preset": "uscrn", "columns": {"sm": "SOIL_MOISTURE_20_DAILY", "precipitation": None}, "network": "MINE"}
    ds = open_stations(tmp_path / "CRND0103-2020-1.txt", "csv", **options)
    assert ds["station"].values.tolist() == ["MINE/1"]
    np.testing.assert_allclose(ds["sm"].values, [[0.3]], rtol=1e-6)
    assert "precipitation" not in ds
    assert "temperature" in ds
