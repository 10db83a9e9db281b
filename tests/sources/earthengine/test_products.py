"""GeoTIFFs in the layouts of their products, small files with the product's grid, codes and fill; and a real chip."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.transform import from_origin

from smgeo.catalog import FEATURES, FILES, Feature
from smgeo.sources import open_rasters


def write(path, values, transform, crs, **options):
    values = np.asarray(values)
    profile = {
        "driver": "GTiff",
        "height": values.shape[0],
        "width": values.shape[1],
        "count": 1,
        "dtype": values.dtype,
    }
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform, **options) as dst:
        dst.write(values, 1)
    return path


def at(lon, lat):
    return xr.Dataset(coords={"station": ["N/a"], "longitude": ("station", [lon]), "latitude": ("station", [lat])})


# SoilGrids 2.0 (ISRIC, documentation of the data: a master VRT over GeoTIFF tiles, interrupted Goode homolosine, 250 m,
# int16 in g/kg, to be divided by 10 for percent; -32768 where there is no soil).
HOMOLOSINE = "ESRI:54052"
VRT = """<VRTDataset rasterXSize="4" rasterYSize="2">
  <SRS>{srs}</SRS>
  <GeoTransform>{left}, 250.0, 0.0, {top}, 0.0, -250.0</GeoTransform>
  <VRTRasterBand dataType="Int16" band="1">
    <NoDataValue>-32768</NoDataValue>
    {parts}
  </VRTRasterBand>
</VRTDataset>"""
PART = """<ComplexSource><SourceFilename relativeToVRT="1">sand_0-5cm_mean/tile_{i}.tif</SourceFilename>
    <SourceBand>1</SourceBand><SrcRect xOff="0" yOff="0" xSize="2" ySize="2"/>
    <DstRect xOff="{x}" yOff="0" xSize="2" ySize="2"/><NODATA>-32768</NODATA></ComplexSource>"""


@pytest.fixture
def soilgrids(tmp_path):
    """Two tiles side by side near 11 E, 50 N; values 100 to 107 in rows, one without soil."""
    x, y = Transformer.from_crs("EPSG:4326", HOMOLOSINE, always_xy=True).transform(11.0, 50.0)
    left, top = round(x / 250) * 250.0 - 500, round(y / 250) * 250.0 + 250
    folder = tmp_path / "sand_0-5cm_mean"
    folder.mkdir()
    values = np.array([[100, 101, 102, 103], [104, 105, 106, -32768]], dtype="int16")
    for i in (0, 1):
        part = values[:, 2 * i : 2 * i + 2]
        write(folder / f"tile_{i}.tif", part, from_origin(left + 500 * i, top, 250, 250), HOMOLOSINE, nodata=-32768)
    srs = rasterio.crs.CRS.from_string(HOMOLOSINE).to_wkt().replace("&", "&amp;").replace('"', "&quot;")
    parts = "".join(PART.format(i=i, x=2 * i) for i in (0, 1))
    (tmp_path / "sand_0-5cm_mean.vrt").write_text(VRT.format(srs=srs, left=left, top=top, parts=parts))
    return tmp_path, left, top


SAND = {"path": "sand_0-5cm_mean.vrt", "bands": {"sand": 1}, "scale": {"sand": 0.1}, "offset": {"sand": 0}}


def test_soilgrids_through_its_master_file(soilgrids):
    folder, left, top = soilgrids
    assert FILES["sand"].scale == 0.1
    as_it_lies = open_rasters(SAND, root=folder)["sand"].values
    np.testing.assert_allclose(as_it_lies, [[10.0, 10.1, 10.2, 10.3], [10.4, 10.5, 10.6, np.nan]], rtol=1e-6)
    lon, lat = Transformer.from_crs(HOMOLOSINE, "EPSG:4326", always_xy=True).transform(left + 600, top - 300)
    np.testing.assert_allclose(open_rasters(SAND, root=folder, stations=at(lon, lat))["sand"].values, [10.6], rtol=1e-6)


def test_soilgrids_on_a_grid_in_utm(soilgrids):
    folder, left, top = soilgrids
    to_utm = Transformer.from_crs(HOMOLOSINE, "EPSG:32632", always_xy=True)
    x, y = to_utm.transform(left + 375, top - 125)  # the middle of the pixel 10.1
    box = GeoBox((1, 1), from_origin(x - 50, y + 50, 100, 100), "EPSG:32632")
    got = open_rasters({**SAND, "resampling": "nearest"}, root=folder, geobox=box)["sand"].values
    np.testing.assert_allclose(got, [[10.1]], rtol=1e-6)


# TanDEM-X 90 m DEM (DLR, product specification): tiles of one degree named by their south-western corner, float32 metres,
# EPSG:4326, -32767 where there is no value; pixel centres on whole degrees, so that neighbours share a row or column.
def test_tandem_x_tiles_are_put_together(tmp_path):
    step = 0.25  # degrees, in place of 3 arc seconds
    for west in (11, 12):
        values = (np.arange(5.0)[:, None] + 10 * (4 * (west - 11) + np.arange(5.0))[None, :]).astype("float32")
        values[2, 2] = -32767
        transform = from_origin(west - step / 2, 50 + step / 2, step, step)
        write(tmp_path / f"TDM1_DEM__30_N49E0{west}_DEM.tif", values, transform, "EPSG:4326", nodata=-32767)
    ds = open_rasters({"path": "TDM1_DEM__30_*_DEM.tif", "bands": {"elevation": 1}}, root=tmp_path)
    expected = np.arange(5.0)[:, None] + 10 * np.arange(9.0)[None, :]
    expected[2, [2, 6]] = np.nan
    np.testing.assert_array_equal(ds["elevation"].values, expected)
    assert ds["x"].values[[0, -1]].tolist() == [11, 13]
    assert ds["y"].values[[0, -1]].tolist() == [50, 49]


# NASA Earth Observations (NEO), GeoTIFF of floating-point values: plate carree over the globe, 99999 where there is no value.
def test_neo_months_have_their_fill(tmp_path):
    values = np.full((18, 36), 20.0, dtype="float32")
    values[9:, :] = 99999.0
    for month in (1, 2):
        name = f"MOD11C1_M_LSTDA_2016-0{month}-01_rgb_3600x1800.FLOAT.TIFF"
        write(tmp_path / name, values + (month - 1) * (values < 9e4), from_origin(-180, 90, 10, 10), "EPSG:4326")
    spec = {
        "path": "MOD11C1_M_LSTDA_*.FLOAT.TIFF",
        "bands": {"temperature": 1},
        "dates": "MOD11C1_M_LSTDA_%Y-%m-%d_*.FLOAT.TIFF",
        "nodata": FILES["temperature"].nodata,
    }
    north = open_rasters(spec, root=tmp_path, stations=at(11.3, 50.2), period=("2016-01-01", "2016-02-01"))[
        "temperature"
    ]
    assert north.values[0, [0, 31]].tolist() == [20.0, 21.0]
    assert np.isnan(north.values[0, 1:31]).all()
    assert np.isnan(open_rasters(spec, root=tmp_path, stations=at(11.3, -50.2))["temperature"].values).all()


def test_the_togo_chip_is_twelve_months_in_one_file(data):
    path = "s1s2_togo/98-togo_2019-02-06_2020-02-01.tif"
    months = pd.date_range("2019-02-15", periods=12, freq="30D")
    own = {
        f"s2_{b.lower()}": Feature(f"s2_{b.lower()}", b, "1", "dynamic", "Sentinel-2", (0, 2), 30)
        for b in ("B2", "B8A")
    }
    bands = {"s1_vv": "VV{step}", "s1_vh": "VH{step}", "s2_b4": "B4{step}", "s2_b8": "B8{step}", "s2_b2": "B2{step}"}
    spec = {"path": path, "bands": bands, "dates": [m.date() for m in months]}
    scale = {n: 1e-4 for n in bands if n.startswith("s2")}
    ds = open_rasters({**spec, "scale": scale}, root=data, catalog={**FEATURES, **own})
    assert dict(ds.sizes) == {"time": 12, "y": 17, "x": 17}
    with rasterio.open(data / path) as src:
        names = list(src.descriptions)
        for k in (0, 1, 11):
            for name, band in bands.items():
                stored = src.read(names.index(band.replace("{step}", f"_{k}" if k else "")) + 1)
                np.testing.assert_allclose(ds[name].values[k], stored * scale.get(name, 1), rtol=1e-6)
    assert -30 < float(ds["s1_vv"].mean()) < 0
    elevation = open_rasters({"path": path, "bands": {"elevation": "elevation", "slope": "slope"}}, root=data)
    assert elevation["elevation"].dims == ("y", "x")
    assert float(elevation["elevation"].min()) > 0
