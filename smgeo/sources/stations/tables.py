"""Tables of stations: long (a row per station and day) or wide (a column per station), plain or gz."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError

from smgeo.catalog import FEATURES, Feature
from smgeo.errors import SmgeoError, nearest
from smgeo.recipe.stations import Column

_PLACE = ("station", "time", "x", "y", "latitude", "longitude", "depth", "network", "station_elevation")


def open_table(
    path: str | Path,
    depth_m: tuple[float, float] = (0.0, 0.10),
    period: tuple[Any, Any] | None = None,
    *,
    columns: Mapping[str, Column | Mapping[str, Any] | str],
    target: str = "sm",
    layout: str = "long",
    stations: str | Path | None = None,
    crs: str = "EPSG:4326",
    network: str = "TABLE",
    min_valid_share: float = 0.0,
    utc_offset_hours: float = 0.0,
    catalog: Mapping[str, Feature] = FEATURES,
) -> xr.Dataset:
    """Stations in a table, as a daily station cube.

    A table is read whole: its stations and days are not known otherwise. The Dataset is chunked all the same.

    Parameters
    ----------
    path : str or Path
        CSV, plain or compressed (.gz).
    depth_m : (float, float)
        Rows whose `depth` column (m below the surface, after its scale) lies in this range; of several depths of a
        station, the one nearest to the range's middle. Not used without a depth column.
    period : (date, date), optional
        First and last day.
    columns : mapping
        Variable (or `station`, `time`, `x`, `y` or `longitude`, `latitude`, `depth`, `network`,
        `station_elevation`) -> name of the column, or a mapping with `column`, `scale`, `offset`, `units`.
    target : str
        The variable stations must have; of a wide table, the only one.
    layout : {"long", "wide"}
        Rows per station and day; or a time column and one column a station, with `stations` a second table of
        station, latitude, longitude (or x, y).
    crs : str
        CRS of `x` and `y`.
    network : str
        Name of the network, where no column holds it. Ids are `NETWORK/STATION`.
    min_valid_share : float
        Share of the usual number of rows a day (the table's median) that a day needs.
    utc_offset_hours : float
        Of times of day that don't say theirs (`2012-03-25 06:00`): -7 for Mountain Standard Time. Times that do
        (`2012-03-25T06:00-07:00`) go by their own, and a day without a time (`2012-03-25`) is that day.
    catalog : mapping
        Kind and unit of each variable.

    Returns
    -------
    xarray.Dataset
        Dims (station, time), float32; static variables (station,). Diagnostics per station: `rows_read`,
        `rows_other_depth`, `rows_without_target` (missing, or outside the valid range), `rows_same_day` (averaged into one day).

    Raises
    ------
    SmgeoError
        If the file or a column is missing, values are no numbers, no row lies in the range of depths, or a
        static variable varies in time.
    """
    file = Path(path)
    if not file.is_file():
        raise SmgeoError(f"table {file} not found (relative paths start at --data)")
    spec = {
        k: c if isinstance(c, Column) else Column.model_validate({"column": c} if isinstance(c, str) else c)
        for k, c in columns.items()
    }
    reader = _read_wide if layout == "wide" else _read_long
    table = reader(file, spec, target, Path(stations) if stations else None)
    if "network" not in table:
        table["network"] = network
    table["station"] = table["network"].astype(str) + "/" + table["station"].astype(str)
    table["time"] = _parse_times(table["time"], file, utc_offset_hours)
    if period is not None:
        table = table[
            (table["time"] >= pd.Timestamp(period[0]))
            & (table["time"] < pd.Timestamp(period[1]) + pd.Timedelta(days=1))
        ]
        if table.empty:
            raise SmgeoError(f"{file}: no row between {period[0]} and {period[1]}")
    read = table.groupby("station").size()
    table = _choose_depth(table, depth_m, file, target)
    days = table["time"].dt.normalize()
    times = pd.date_range(
        pd.Timestamp(period[0]) if period else days.min(),
        pd.Timestamp(period[1]) if period else days.max(),
        freq="D",
        name="time",
    )
    at_depth = table.groupby("station").size()
    table = _drop_impossible(table, target, catalog, file)
    with_target = table[target].notna().astype("int64").groupby(table["station"]).sum()
    ids = sorted(table["station"].unique())
    variables = [c for c in table.columns if c not in _PLACE]
    grouped = table.assign(time=days).groupby(["station", "time"])
    daily = grouped[variables].mean().astype("float32")
    if min_valid_share > 0:
        usual = float(grouped.size().median())
        daily = daily.where(grouped[variables].count() >= min_valid_share * usual)
    data: dict[str, Any] = {}
    index = pd.MultiIndex.from_product([ids, times], names=["station", "time"])
    full = daily.reindex(index)
    for name in variables:
        feature = catalog.get(name)
        if feature is None:
            raise SmgeoError(
                f"{file}: column for unknown variable {name!r}; {nearest(name, list(catalog))}; or describe it in variables"
            )
        values = full[name].to_numpy().reshape(len(ids), times.size)
        attrs = {**feature.attrs(), "source": f"table {file.name}"}
        if feature.kind == "static":
            data[name] = (("station",), _constant(values, ids, name, file), attrs)
        else:
            data[name] = (("station", "time"), values, attrs)
    tallies = {
        "rows_read": read,
        "rows_other_depth": read - at_depth.reindex(read.index, fill_value=0),
        "rows_without_target": at_depth - with_target,
        "rows_same_day": with_target - daily[target].notna().astype("int64").groupby("station").sum(),
    }
    for name, count in tallies.items():
        attrs = {"kind": "diagnostic", "units": "1", "long_name": name.replace("_", " "), "source": file.name}
        data[name] = (("station",), count.reindex(ids).to_numpy("int64"), attrs)
    left_out = {s: f"no row between {depth_m[0]:g} and {depth_m[1]:g} m" for s in read.index if s not in set(ids)}
    coords = {
        "station": np.array(ids, dtype=object),
        "time": times,
        **_places(table, ids, crs, file),
        "sensors": ("station", _sensors(table, ids), {"long_name": f"sensors that {target} is made of, JSON"}),
    }
    ds = xr.Dataset(data, coords, {"left_out": json.dumps(left_out)})
    return ds.assign({n: v.chunk({"station": 256}) for n, v in ds.data_vars.items()})


def _drop_impossible(table: pd.DataFrame, target: str, catalog: Mapping[str, Feature], file: Path) -> pd.DataFrame:
    """The table with values outside their valid range missing; a column that lies outside as a whole is refused."""
    out = table.copy()
    for name in [c for c in table.columns if c not in _PLACE and c in catalog]:
        low, high = catalog[name].valid_range
        middle = table[name].median()
        if not np.isnan(middle) and not low <= middle <= high:
            raise SmgeoError(
                f"{file}: half of the values of {name} lie beyond {middle:g}, outside {low:g} to {high:g} {catalog[name].units}; is "
                "the column in another unit? Convert it with scale and offset"
            )
        out[name] = table[name].where(table[name].between(low, high))
    return out


def _read_csv(file: Path, **options: Any) -> pd.DataFrame:
    try:
        return pd.read_csv(file, **options)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise SmgeoError(f"{file} can't be read as a table: {error}") from None


def _column(table: pd.DataFrame, name: str, column: Column, file: Path) -> pd.Series:
    if column.column not in table:
        raise SmgeoError(
            f"{file}: no column {column.column!r} (for {name}); {nearest(column.column, [str(c) for c in table.columns])}"
        )
    values = table[column.column]
    if name in ("station", "time", "network"):
        return values
    numbers = pd.to_numeric(values, errors="coerce")
    bad = numbers.isna() & values.notna()
    if bad.any():
        line = int(np.flatnonzero(bad.to_numpy())[0])
        raise SmgeoError(
            f"{file}, line {line + 2}: column {column.column!r} holds {values.iloc[line]!r}, which is no number"
        )
    return numbers * column.scale + column.offset


def _read_long(file: Path, spec: dict[str, Column], target: str, stations: Path | None) -> pd.DataFrame:
    header = [str(c) for c in _read_csv(file, nrows=0)]
    for name, column in spec.items():
        if column.column not in header:
            raise SmgeoError(f"{file}: no column {column.column!r} (for {name}); {nearest(column.column, header)}")
    raw = _read_csv(file, usecols=lambda c: c in {s.column for s in spec.values()}, low_memory=False)
    table = pd.DataFrame({name: _column(raw, name, column, file) for name, column in spec.items()})
    if target not in table:
        raise SmgeoError(f"{file}: columns does not say which column holds the target {target!r}")
    if stations is None:
        return table
    return _join_places(table, stations)


def _read_wide(file: Path, spec: dict[str, Column], target: str, stations: Path | None) -> pd.DataFrame:
    if stations is None:
        raise SmgeoError(f"{file}: a wide table needs `stations`, a table of station, latitude, longitude")
    raw = _read_csv(file)
    places = _read_places(stations)
    time = _column(raw, "time", spec["time"], file)
    rule = spec.get(target, Column(column=target))
    parts = []
    for station in places["station"]:
        values = _column(raw, target, rule.model_copy(update={"column": station}), file)
        parts.append(pd.DataFrame({"station": station, "time": time, target: values}))
    unknown = sorted(set(map(str, raw.columns)) - set(places["station"]) - {spec["time"].column})
    if unknown:
        raise SmgeoError(f"{file}: columns of stations that {stations} does not place: {', '.join(unknown[:10])}")
    return _join_places(pd.concat(parts, ignore_index=True), stations)


def _join_places(table: pd.DataFrame, stations: Path) -> pd.DataFrame:
    """The table with each station's place; every station must have one."""
    places = _read_places(stations)
    table = table.assign(station=table["station"].astype(str))
    unknown = sorted(set(table["station"]) - set(places["station"]))
    if unknown:
        raise SmgeoError(
            f"{stations} lacks stations of the data: {', '.join(unknown[:10])}; add them, or take their rows out"
        )
    return table.merge(places, on="station", how="left", validate="m:1")


def _read_places(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise SmgeoError(f"table of stations {path} not found (relative paths start at --data)")
    places = _read_csv(path)
    if "station" not in places or not ({"latitude", "longitude"} <= set(places) or {"x", "y"} <= set(places)):
        raise SmgeoError(
            f"{path} needs columns station, latitude, longitude (or station, x, y); it has {', '.join(map(str, places))}"
        )
    places = places[[c for c in places.columns if c in _PLACE]].astype({"station": str})
    twice = places.loc[places["station"].duplicated(), "station"]
    if not twice.empty:
        raise SmgeoError(f"{path} holds stations twice: {', '.join(twice[:10])}")
    return places


def _parse_times(column: pd.Series, file: Path, utc_offset_hours: float) -> pd.Series:
    """Times in UTC without zone; a time of day without an offset is `utc_offset_hours` ahead of UTC."""
    # As text: pandas takes whole numbers such as 20120325 for nanoseconds since 1970.
    words = column.astype(str)
    parsed = pd.to_datetime(words, errors="coerce", utc=True, format="ISO8601").dt.tz_localize(None)
    if parsed.isna().any():
        line = int(np.flatnonzero(parsed.isna().to_numpy())[0])
        raise SmgeoError(
            f"{file}, line {line + 2}: {column.iloc[line]!r} is no date; write 2012-03-25 or 2012-03-25T06:00Z"
        )
    if utc_offset_hours:
        local = words.str.contains(":") & ~words.str.contains(r"(?:Z|[+-]\d{2}(?::?\d{2})?)$", regex=True)
        parsed = parsed.mask(local, parsed - pd.Timedelta(hours=utc_offset_hours))
    return parsed


def _choose_depth(table: pd.DataFrame, depth_m: tuple[float, float], file: Path, target: str) -> pd.DataFrame:
    if "depth" not in table:
        return table
    low, high = depth_m
    inside = table[table["depth"].between(low - 1e-9, high + 1e-9)]
    if inside.empty:
        found = ", ".join(f"{d:g}" for d in sorted(table["depth"].unique())[:20])
        raise SmgeoError(
            f"{file}: no station has {target} between {low:g} and {high:g} m; depths in the table: {found} m. Change target.depth_m"
        )
    distance = (inside["depth"] - (low + high) / 2).abs().round(6)
    nearest_depth = distance.groupby(inside["station"]).transform("min")
    inside = inside[distance == nearest_depth]
    # Of two depths as near, the shallower.
    return inside[inside["depth"] == inside["depth"].groupby(inside["station"]).transform("min")]


def _sensors(table: pd.DataFrame, ids: list[str]) -> np.ndarray:
    """What each station's rows are made of, as JSON: the depth, where the table has one."""
    if "depth" not in table:
        return np.array(["[]"] * len(ids), dtype=object)
    depths = table.groupby("station")["depth"].unique()
    records = [[{"sensor": "", "depth_m": [round(float(d), 4)] * 2} for d in depths[s]] for s in ids]
    return np.array([json.dumps(r) for r in records], dtype=object)


def _constant(values: np.ndarray, ids: list[str], name: str, file: Path) -> np.ndarray:
    """The one value of each row."""
    filled = np.where(np.isnan(values), -np.inf, values).max(axis=1)
    least = np.where(np.isnan(values), np.inf, values).min(axis=1)
    varies = np.flatnonzero((filled - least) > 1e-5 * np.maximum(np.abs(filled), 1))
    if varies.size:
        i = int(varies[0])
        raise SmgeoError(
            f"{file}: {name} is static, but varies at {ids[i]} between {least[i]:g} and {filled[i]:g}; give it kind: dynamic in variables"
        )
    return np.where(np.isfinite(filled), filled, np.nan).astype("float32")


def _places(table: pd.DataFrame, ids: list[str], crs: str, file: Path) -> dict[str, Any]:
    first = table.groupby("station").first().reindex(ids)
    if {"latitude", "longitude"} <= set(first):
        longitude, latitude = first["longitude"].to_numpy("float64"), first["latitude"].to_numpy("float64")
    elif {"x", "y"} <= set(first):
        try:
            to_degrees = Transformer.from_crs(CRS.from_user_input(crs), "EPSG:4326", always_xy=True)
        except CRSError as error:
            raise SmgeoError(
                f"{file}: crs {crs!r} is not known to PROJ ({error}); give one such as EPSG:32632"
            ) from None
        longitude, latitude = to_degrees.transform(first["x"].to_numpy("float64"), first["y"].to_numpy("float64"))
    else:
        raise SmgeoError(f"{file}: columns must say where stations are: latitude and longitude, or x and y with crs")
    elevation = (
        first["station_elevation"].to_numpy("float64") if "station_elevation" in first else np.full(len(ids), np.nan)
    )
    return {
        "latitude": ("station", latitude, {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": ("station", longitude, {"units": "degrees_east", "standard_name": "longitude"}),
        "station_elevation": ("station", elevation, {"units": "m"}),
        "network": ("station", first["network"].astype(str).to_numpy(dtype=object)),
    }
