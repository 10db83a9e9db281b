"""Tables of stations: long (a row per station and day) or wide (a column per station), plain or gz."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError

from smgeo.catalog import FEATURES, Feature
from smgeo.errors import SmgeoError, nearest
from smgeo.recipe.stations import PLACE_COLUMNS, Column, TableSource
from smgeo.sources.stations.csv_files import read_csv, read_places
from smgeo.sources.stations.layout import Entry, Period, count, day_axis, station_coordinates


def open_table(
    spec: TableSource,
    *,
    root: str | Path = ".",
    target: str = "sm",
    depth_m: tuple[float, float] = (0.0, 0.10),
    period: Period | None = None,
    catalog: Mapping[str, Feature] = FEATURES,
) -> xr.Dataset:
    """Return the stations of a table as a daily station cube.

    The whole table is read, because only its rows name the stations and days. The Dataset is chunked all the same.

    Parameters
    ----------
    spec, root, target, period, catalog
        As in `smgeo.sources.stations.ismn.open_ismn`; the target is the only variable of a wide table.
    depth_m : (float, float)
        Range of the `depth` column (m below the surface, after its scale); of several depths of a
        station, the one nearest to the range's middle. Not used without a depth column.

    Returns
    -------
    xarray.Dataset
        Dims (station, time), float32; static variables (station,). Diagnostics per station: `rows_read`,
        `rows_other_depth`, `rows_without_target` (missing, or outside the valid range), `rows_same_day` (averaged into one day).

    Raises
    ------
    SmgeoError
        If the file or a column is missing, values are not numbers, no row is in the range of depths, or a
        static variable varies in time.
    """
    file = Path(root) / spec.path
    table = _read_rows(file, spec, target, Path(root), period)
    _check_variables(table, catalog, file)
    read = table.groupby("station").size()
    table = _choose_depth(table, depth_m, file, target)
    at_depth = table.groupby("station").size()
    table = _drop_impossible(_drop_missing(table, spec, catalog), catalog, file)
    days = table["time"].dt.normalize()
    times = day_axis(*period) if period is not None else day_axis(days.min(), days.max())
    daily = _daily_means(table, days, spec.min_valid_share)
    ids = sorted(table["station"].unique())
    data = _lay_out(daily, ids, times, catalog, file)
    with_target = table[target].notna().astype("int64").groupby(table["station"]).sum()
    tallies = {
        "rows_read": read,
        "rows_other_depth": read - at_depth.reindex(read.index, fill_value=0),
        "rows_without_target": at_depth - with_target,
        "rows_same_day": with_target - daily[target].notna().astype("int64").groupby("station").sum(),
    }
    for name, rows in tallies.items():
        data[name] = count(rows.reindex(ids).to_numpy("int64"), name.replace("_", " "), file.name)
    left_out = {s: f"no row between {depth_m[0]:g} and {depth_m[1]:g} m" for s in read.index if s not in set(ids)}
    ds = xr.Dataset(data, _coordinates(table, ids, times, spec, target, file), {"left_out": json.dumps(left_out)})
    return ds.assign({n: v.chunk({"station": 256}) for n, v in ds.data_vars.items()})


def _read_rows(file: Path, spec: TableSource, target: str, root: Path, period: Period | None) -> pd.DataFrame:
    """Return the rows of the period: station (`NETWORK/NAME`), time (UTC), variables and places, by their names in a cube."""
    if not file.is_file():
        raise SmgeoError(f"table {file} not found (relative paths start at --data)")
    places = read_places(root / spec.stations, projected=True) if spec.stations is not None else None
    if spec.layout == "wide" and places is not None:  # a wide table without positions is refused by its spec
        table = _read_wide(file, spec, target, list(places["station"]))
    else:
        table = _read_long(file, spec, target)
    if places is not None:
        table = _join_places(table, places, root / str(spec.stations))
    if "network" not in table:
        table["network"] = spec.network
    table["station"] = table["network"].astype(str) + "/" + table["station"].astype(str)
    table["time"] = _parse_times(table["time"], file, spec.utc_offset_hours)
    if period is None:
        return table
    first, last = pd.Timestamp(period[0]), pd.Timestamp(period[1])
    table = table[(table["time"] >= first) & (table["time"] < last + pd.Timedelta(days=1))]
    if table.empty:
        raise SmgeoError(f"{file}: no row between {period[0]} and {period[1]}")
    return table


def _read_long(file: Path, spec: TableSource, target: str) -> pd.DataFrame:
    header = [str(c) for c in read_csv(file, rows=0)]
    faults = [
        f"no column {c.column!r} (for {name}); {nearest(c.column, header)}"
        for name, c in spec.columns.items()
        if c.column not in header
    ]
    if target not in spec.columns:
        faults.append(f"`columns` does not name the column of the target {target!r}")
    if faults:
        raise SmgeoError(f"{file}: {'; '.join(faults)}")
    wanted = {c.column for c in spec.columns.values()}
    raw = read_csv(file, columns=lambda name: name in wanted)
    return pd.DataFrame({name: _column(raw, name, column, file) for name, column in spec.columns.items()})


def _read_wide(file: Path, spec: TableSource, target: str, stations: Sequence[str]) -> pd.DataFrame:
    raw = read_csv(file)
    header, clock = [str(c) for c in raw.columns], spec.columns["time"]
    faults = [
        f"no column {name!r} (for {what}); {nearest(name, header)}"
        for name, what in [(clock.column, "time"), *((s, target) for s in stations)]
        if name not in header
    ]
    if unknown := sorted(set(header) - set(stations) - {clock.column}):
        faults.append(f"columns of stations without a position in {spec.stations}: {', '.join(unknown[:10])}")
    if faults:
        raise SmgeoError(f"{file}: {'; '.join(faults)}")
    time = _column(raw, "time", clock, file)
    rule = spec.columns.get(target, Column(column=target))
    parts = []
    for station in stations:
        values = _column(raw, target, rule.model_copy(update={"column": station}), file)
        parts.append(pd.DataFrame({"station": station, "time": time, target: values}))
    return pd.concat(parts, ignore_index=True)


def _column(table: pd.DataFrame, name: str, column: Column, file: Path) -> pd.Series:
    """Return a column as numbers in the catalogue's unit; as it is for names and times."""
    values = table[column.column]
    if name in ("station", "time", "network"):
        return values
    numbers = pd.to_numeric(values, errors="coerce")
    bad = np.flatnonzero((numbers.isna() & values.notna()).to_numpy())
    if bad.size:
        raise SmgeoError(
            f"{file}, line {bad[0] + 2}: column {column.column!r} contains {values.iloc[bad[0]]!r}, which is not a number"
        )
    return numbers * column.scale + column.offset


def _join_places(table: pd.DataFrame, places: pd.DataFrame, file: Path) -> pd.DataFrame:
    """Return the table with each station's position; every station must have one."""
    table = table.assign(station=table["station"].astype(str))
    unknown = sorted(set(table["station"]) - set(places["station"]))
    if unknown:
        raise SmgeoError(
            f"{file} lacks stations of the data: {', '.join(unknown[:10])}; add them, or remove their rows from the data"
        )
    return table.merge(places, on="station", how="left", validate="m:1")


def _parse_times(column: pd.Series, file: Path, utc_offset_hours: float) -> pd.Series:
    """Return times in UTC without zone; a time of day without an offset is `utc_offset_hours` ahead of UTC."""
    # As text: pandas takes whole numbers such as 20120325 for nanoseconds since 1970.
    words = column.astype(str)
    parsed = pd.to_datetime(words, errors="coerce", utc=True, format="ISO8601").dt.tz_localize(None)
    bad = np.flatnonzero(parsed.isna().to_numpy())
    if bad.size:
        raise SmgeoError(
            f"{file}, line {bad[0] + 2}: {column.iloc[bad[0]]!r} is not a date; write 2012-03-25 or 2012-03-25T06:00Z"
        )
    if utc_offset_hours:
        local = words.str.contains(":") & ~words.str.contains(r"(?:Z|[+-]\d{2}(?::?\d{2})?)$", regex=True)
        parsed = parsed.mask(local, parsed - pd.Timedelta(hours=utc_offset_hours))
    return parsed


def _variables(table: pd.DataFrame) -> list[str]:
    return [str(c) for c in table.columns if c not in PLACE_COLUMNS]


def _check_variables(table: pd.DataFrame, catalog: Mapping[str, Feature], file: Path) -> None:
    if unknown := [f"{n!r} ({nearest(n, list(catalog))})" for n in _variables(table) if n not in catalog]:
        raise SmgeoError(f"{file}: columns for unknown variables {', '.join(unknown)}; or describe them in variables")


def _choose_depth(table: pd.DataFrame, depth_m: tuple[float, float], file: Path, target: str) -> pd.DataFrame:
    """Return the rows of each station's depth that is nearest to the middle of the range."""
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
    # Of two depths equally near, the shallower.
    return inside[inside["depth"] == inside["depth"].groupby(inside["station"]).transform("min")]


def _drop_missing(table: pd.DataFrame, spec: TableSource, catalog: Mapping[str, Feature]) -> pd.DataFrame:
    """Return the table with the numbers missing that stand for missing in the file, before scale and offset."""
    out = table.copy()
    for name in _variables(table):
        rule = spec.columns.get(name, Column(column=name))
        numbers = np.array(catalog[name].missing) * rule.scale + rule.offset
        out[name] = table[name].mask(table[name].isin(numbers.tolist()))
    return out


def _drop_impossible(table: pd.DataFrame, catalog: Mapping[str, Feature], file: Path) -> pd.DataFrame:
    """Return the table with values outside their valid range missing.

    Raises
    ------
    SmgeoError
        If half of a variable's values are outside its range, as in another unit.
    """
    out = table.copy()
    for name in _variables(table):
        low, high = catalog[name].valid_range
        middle = table[name].median()
        if not np.isnan(middle) and not low <= middle <= high:
            raise SmgeoError(
                f"{file}: half of the values of {name} are beyond {middle:g}, outside {low:g} to {high:g} {catalog[name].units}; is "
                "the column in another unit? Convert it with scale and offset"
            )
        out[name] = table[name].where(table[name].between(low, high))
    return out


def _daily_means(table: pd.DataFrame, days: pd.Series, min_valid_share: float) -> pd.DataFrame:
    """Return the mean of each station's day (station, time), float32; NaN if it has too small a share of the usual rows."""
    variables = _variables(table)
    grouped = table.assign(time=days).groupby(["station", "time"])
    daily = grouped[variables].mean().astype("float32")
    if min_valid_share > 0:
        daily = daily.where(grouped[variables].count() >= min_valid_share * float(grouped.size().median()))
    return daily


def _lay_out(
    daily: pd.DataFrame, ids: Sequence[str], times: pd.DatetimeIndex, catalog: Mapping[str, Feature], file: Path
) -> dict[str, Entry]:
    """Return the variables of the cube: (station, time), or (station,) for static ones."""
    full = daily.reindex(pd.MultiIndex.from_product([ids, times], names=["station", "time"]))
    data: dict[str, Entry] = {}
    for name in map(str, full.columns):
        values = full[name].to_numpy().reshape(len(ids), times.size)
        attrs = {**catalog[name].attrs(), "source": f"table {file.name}"}
        if catalog[name].kind == "static":
            data[name] = ("station",), _constant(values, ids, name, file), attrs
        else:
            data[name] = ("station", "time"), values, attrs
    return data


def _constant(values: np.ndarray, ids: Sequence[str], name: str, file: Path) -> np.ndarray:
    """Return the one value of each row."""
    most = np.where(np.isnan(values), -np.inf, values).max(axis=1)
    least = np.where(np.isnan(values), np.inf, values).min(axis=1)
    varies = np.flatnonzero((most - least) > 1e-5 * np.maximum(np.abs(most), 1))
    if varies.size:
        i = int(varies[0])
        raise SmgeoError(
            f"{file}: {name} is static but varies at {ids[i]} between {least[i]:g} and {most[i]:g}; set kind: dynamic in variables"
        )
    return np.where(np.isfinite(most), most, np.nan).astype("float32")


def _coordinates(
    table: pd.DataFrame, ids: Sequence[str], times: pd.DatetimeIndex, spec: TableSource, target: str, file: Path
) -> dict[str, object]:
    first = table.groupby("station").first().reindex(list(ids))
    longitude, latitude = _degrees(first, spec.crs, file)
    records = ["[]"] * len(ids)
    if "depth" in table:
        depths = table.groupby("station")["depth"].unique()
        records = [json.dumps([{"sensor": "", "depth_m": [round(float(d), 4)] * 2} for d in depths[s]]) for s in ids]
    high = first["station_elevation"].to_numpy("float64") if "station_elevation" in first else np.full(len(ids), np.nan)
    return station_coordinates(
        ids,
        times,
        latitude,
        longitude,
        elevation=high,
        networks=list(first["network"].astype(str)),
        sensors=records,
        target=target,
    )


def _degrees(first: pd.DataFrame, crs: str, file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return longitude and latitude, degrees, of one row a station."""
    if {"latitude", "longitude"} <= set(first):
        return first["longitude"].to_numpy("float64"), first["latitude"].to_numpy("float64")
    if not {"x", "y"} <= set(first):
        raise SmgeoError(
            f"{file}: stations have no position; name columns of latitude and longitude, or of x and y with crs"
        )
    try:
        to_degrees = Transformer.from_crs(CRS.from_user_input(crs), "EPSG:4326", always_xy=True)
    except CRSError as error:
        raise SmgeoError(f"{file}: crs {crs!r} is unknown to PROJ ({error}); use one such as EPSG:32632") from None
    longitude, latitude = to_degrees.transform(first["x"].to_numpy("float64"), first["y"].to_numpy("float64"))
    return longitude, latitude
