"""How much random rows flatter, on two real data sets: `python recipes/leakage.py DATA`. Takes about 3 minutes on 2 cores.

Data   hydrodl_smap/CONUSv4f1 under DATA: soil moisture of SMAP with weather and soils at 412 cells of the CONUS, 2015 to 2017, of
       the hydroDL tutorial (Fang et al. 2017, Geophys. Res. Lett. 44, 11030-11039). cookfarm/cookfarm.csv.gz: see cookfarm.yaml.
Prints the leakage audit of both. A second argument N takes every Nth cell and station, for a quick look.
"""

import sys
from pathlib import Path

import smgeo
from smgeo.assemble.stations import build_station_cube
from smgeo.catalog import FEATURES, Feature
from smgeo.recipe import read_recipe
from smgeo.study.inputs import open_all_stations

data = Path(sys.argv[1] if len(sys.argv) > 1 else "data")
every = slice(None, None, int(sys.argv[2]) if len(sys.argv) > 2 else 1)

# What the catalogue lacks: name, unit, kind, valid range.
own = [
    ("radiation_longwave", "W m-2", "dynamic", (0, 1000)),
    ("radiation_shortwave", "W m-2", "dynamic", (0, 1500)),
    ("humidity", "kg kg-1", "dynamic", (0, 0.1)),
    ("wind_east", "m s-1", "dynamic", (-60, 60)),
    ("wind_north", "m s-1", "dynamic", (-60, 60)),
    ("bulk_density", "g cm-3", "static", (0, 3)),
    ("water_capacity", "1", "static", (0, 100)),
    ("ndvi_mean", "1", "static", (-1, 1)),
]
catalog = {**FEATURES, **{n: Feature(n, n.replace("_", " "), u, k, "hydroDL", r) for n, u, k, r in own}}
cells = smgeo.open_stations(
    data / "hydrodl_smap" / "CONUSv4f1",
    kind="matrix",
    network="SMAP",
    years=[2015, 2016],
    variables={
        "sm": "SMAP_AM",
        "precipitation": {"file": "APCP_FORA", "scale": 24},  # mm h-1 to mm d-1
        "temperature": {"file": "TMP_2_FORA", "offset": -273.15},  # K to degrees Celsius
        "radiation_longwave": "DLWRF_FORA",
        "radiation_shortwave": "DSWRF_FORA",
        "humidity": "SPFH_2_FORA",
        "wind_east": "UGRD_10_FORA",
        "wind_north": "VGRD_10_FORA",
    },
    static={
        "sand": "Sand",
        "silt": "Silt",
        "clay": "Clay",
        "bulk_density": "Bulk",
        "water_capacity": "Capa",
        "ndvi_mean": "NDVI",
    },
    catalog=catalog,
)
print("SMAP cells", smgeo.audit_leakage(cells.isel(station=every).load()), sep="\n", end="\n\n")

recipe = read_recipe("cookfarm")
probes = build_station_cube(open_all_stations(recipe, data), (), recipe.features, "sm", data, recipe.catalog)
print("Cook Farm", smgeo.audit_leakage(probes.isel(station=every).load(), recipe.features), sep="\n")
