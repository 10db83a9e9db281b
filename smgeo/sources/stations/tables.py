"""Tables of stations as a station cube: one depth a station, possible values, and one value a day."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from dask.delayed import delayed

from smgeo.catalog import FEATURES, Feature
from smgeo.cube.tally import note_dropped
from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.recipe.tables import TableSource
from smgeo.sources.pixels.gate import INFINITE, OUTSIDE
from smgeo.sources.stations.layout import Entry, Period, count, day_axis, station_coordinates
from smgeo.sources.stations.table_rows import Rows, Sources, read_rows

# From what is found to what the cube stores, by the cube's unit: words, scale and offset.
_CONVERSIONS: dict[str, tuple[tuple[str, float, float], ...]] = {
    "m3 m-3": (("percent", 0.01, 0.0),),
    "1": (("percent", 0.01, 0.0),),
    "percent": (("a fraction", 100.0, 0.0), ("g/kg", 0.1, 0.0)),
    "degC": (("kelvin", 1.0, -273.15), ("degrees Fahrenheit", 5 / 9, -160 / 9)),
    "K": (("degrees Celsius", 1.0, 273.15),),
    "mm d-1": (("hundredths of mm", 0.01, 0.0),),
}
_DAY = pd.Timedelta(days=1)
_NAMED = 10  # stations that a message names
# Variable -> reason -> rows dropped, by station.
_Dropped = dict[str, dict[str, pd.Series]]


def open_table(
    spec: TableSource,
    *,
    frame: pd.DataFrame | None = None,
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
    frame : DataFrame, optional
        The table, in place of the spec's path.
    depth_m : (float, float)
        Range of the depths (m below the surface) of the `depth` column, after its scale, or of a variable's columns; of several
        depths of a station, the one nearest to the range's middle that has a value. Not used without depths.

    Returns
    -------
    xarray.Dataset
        Dims (station, time), float32; static variables (station,). Diagnostics per station: `rows_read`,
        `rows_other_depth`, `rows_without_target` (missing, or outside the valid range), `rows_same_day` (averaged into one day),
        `rows_same_time` (those among them with the same time). Coordinate `group` if the table has that column.

    Raises
    ------
    SmgeoError
        If the file or a column is missing, values are not numbers, no row is in the range of depths, a station is at two places, or
        a static variable varies in time.
    """
    rows = read_rows(spec, frame, root=Path(root), target=target, period=period, catalog=catalog)
    name = "DataFrame" if frame is not None else Path(spec.path).name
    read = rows.table.groupby("station").size()
    dropped = _drop_impossible(rows, spec, catalog)
    table, depths = _choose_depths(rows, depth_m, target, one_depth=spec.one_depth)
    at_depth = table.groupby("station").size()
    same_time = _count_same_time(table, rows.sources)
    times = (
        day_axis(*period)
        if period is not None
        else day_axis(table["time"].min().normalize(), table["time"].max().normalize())
    )
    daily, summed = _to_days(table, spec, catalog, rows.sources.where)
    ids = sorted(table["station"].unique())
    data = _lay_out(daily, table, ids, times, catalog, rows.sources, f"table {name}")
    for variable in summed:
        data[variable] = (*data[variable][:2], {**data[variable][2], "daily": "sum"})
    with_target = table[target].notna().astype("int64").groupby(table["station"]).sum()
    tallies = {
        "rows_read": read,
        "rows_other_depth": read - at_depth.reindex(read.index, fill_value=0),
        "rows_without_target": at_depth - with_target,
        "rows_same_day": with_target - _count_days(table[table[target].notna()]),
        "rows_same_time": same_time,
    }
    for tally, numbers in tallies.items():
        counts = numbers.reindex(ids).fillna(0).to_numpy("int64")
        data[tally] = count(counts, tally.replace("_", " "), name)
    left_out = {s: f"no {target} between {depth_m[0]:g} and {depth_m[1]:g} m" for s in read.index if s not in set(ids)}
    ds = xr.Dataset(data, _coordinates(table, ids, times, target, depths), {"left_out": json.dumps(left_out)})
    return ds.assign({n: _chunked(v, ids, dropped.get(str(n), {})) for n, v in ds.data_vars.items()})


def _count_days(table: pd.DataFrame) -> pd.Series:
    """Return the number of days on which each station has a row."""
    days: pd.Series = (
        table[["station"]].assign(day=table["time"].dt.normalize()).drop_duplicates().groupby("station").size()
    )
    return days


def _chunked(variable: xr.DataArray, ids: Sequence[str], dropped: Mapping[str, pd.Series]) -> xr.DataArray:
    """Return a variable in Dask chunks; one whose values were dropped counts them as its stations are computed."""
    lost = {reason: n.reindex(list(ids)).fillna(0).to_numpy("int64") for reason, n in dropped.items()}
    if not lost:
        return variable.chunk({"station": 256})
    give = delayed(_give, pure=True)
    blocks = [
        da.from_delayed(
            give(ids[i], variable.values[i : i + 1], str(variable.name), {r: int(n[i]) for r, n in lost.items()}),
            (1, *variable.shape[1:]),
            dtype=variable.dtype,
        )
        for i in range(len(ids))
    ]
    return variable.copy(data=da.concatenate(blocks))


def _give(station: str, values: np.ndarray, name: str, dropped: Mapping[str, int]) -> np.ndarray:
    """Return the values of a station, whose id makes equal series two tasks, and count what was dropped."""
    for reason, number in dropped.items():
        note_dropped(name, reason, number)
    return values


def _drop_impossible(rows: Rows, spec: TableSource, catalog: Mapping[str, Feature]) -> _Dropped:
    """Make values outside their valid range missing, in the table itself; return their number by station.

    Raises
    ------
    SmgeoError
        If half of a variable's values are outside its range, as in another unit.
    """
    out: _Dropped = {}
    faults = []
    for name in rows.variables():
        low, high = _valid_range(name, spec, catalog)
        for column in rows.columns_of(name):
            values = rows.table[column]
            infinite = np.isinf(values)
            outside = ~infinite & ~values.between(low, high) & values.notna()
            given = int((values.notna() & ~infinite).sum())
            if 2 * int(outside.sum()) > given:
                faults.append(
                    _describe_other_unit(name, values[values.notna() & ~infinite], (low, high), catalog[name], rows)
                )
                continue
            _warn_of_stations(name, rows, column, catalog[name])
            for reason, bad in ((INFINITE, infinite), (OUTSIDE, outside)):
                if bad.any():
                    lost = bad.groupby(rows.table["station"]).sum()
                    reasons = out.setdefault(name, {})
                    reasons[reason] = reasons[reason].add(lost, fill_value=0) if reason in reasons else lost
            rows.table[column] = values.where(~(infinite | outside))
    if faults:
        raise SmgeoError(f"{rows.sources.where}: {'; '.join(faults)}")
    return out


def _warn_of_stations(name: str, rows: Rows, column: str, feature: Feature) -> None:
    """Warn of stations most of whose values are impossible, as in another unit than the others'; they are made missing."""
    values = rows.table[column]
    values = values[np.isfinite(values)]
    outside = ~values.between(*feature.valid_range)
    if not outside.any():
        return
    stations = rows.table["station"].loc[values.index]
    share = outside.groupby(stations).mean()
    strange = share.index[share > 0.5]
    if not len(strange):
        return
    low, high = feature.valid_range
    theirs = values[stations.isin(strange)]
    hint = "correct them, or leave these stations out"
    for unit, scale, offset in _CONVERSIONS.get(feature.units, ()):
        if (theirs * scale + offset).between(low, high).mean() > 0.9:
            terms = f" times {scale:.6g}" * (scale != 1) + f" plus {offset:.6g}" * (offset != 0)
            hint = f"if they are in {unit} there, convert them in the table ({feature.units} is {unit}{terms})"
            break
    named = ", ".join(map(str, strange[:_NAMED])) + ", ..." * (len(strange) > _NAMED)
    warnings.warn(
        f"{rows.sources.where}: most values of {name} are outside {low:g} to {high:g} {feature.units} at {len(strange)} station(s) (median "
        f"{theirs.median():g}): {named}. They are made missing; {hint}",
        SmgeoWarning,
        stacklevel=2,
    )


def _valid_range(name: str, spec: TableSource, catalog: Mapping[str, Feature]) -> tuple[float, float]:
    low, high = catalog[name].valid_range
    own = spec.valid.get(name, (low, high))
    return max(low, own[0]), min(high, own[1])


def _describe_other_unit(
    name: str, values: pd.Series, limits: tuple[float, float], feature: Feature, rows: Rows
) -> str:
    """Return words for values of which most are impossible, with the conversion or the code that explains them."""
    low, high = limits
    outside = values[~values.between(low, high)]
    code, times = outside.value_counts().index[0], int(outside.value_counts().iloc[0])
    if outside.nunique() == 1 or (
        times > 0.5 * len(outside) and values[values != code].between(low, high).mean() > 0.5
    ):
        hint = f"if {code:g} stands for a missing value, set missing: [{code:g}]"
    else:
        hint = "is the column in another unit? Convert it with scale and offset"
        for unit, scale, offset in _CONVERSIONS.get(feature.units, ()):
            if (values * scale + offset).between(low, high).mean() > 0.9:
                keys = f"scale: {scale:.6g}" * (scale != 1) + ", " * (scale != 1 and offset != 0)
                keys += f"offset: {offset:.6g}" * (offset != 0)
                hint = f"is the column in another unit? If it is in {unit}, set columns.{name}: {{column: ..., {keys}}}"
                break
    place = rows.sources.place(int(outside.index[0]))
    return (
        f"{len(outside) / len(values):.0%} of the values of {name} (median {values.median():g}, the first {outside.iloc[0]:g} in {place}) are "
        f"outside {low:g} to {high:g} {feature.units}; {hint}"
    )


# ---- depths


def _choose_depths(
    rows: Rows, depth_m: tuple[float, float], target: str, *, one_depth: bool
) -> tuple[pd.DataFrame, dict[str, list[dict[str, object]]]]:
    """Return the rows at one depth of each station, and the target's sensors by station.

    The depth is the one nearest to the middle of the range at which the station has a value (with `one_depth`, any station);
    of two equally near, the shallower.
    """
    table, low, high = rows.table, *depth_m
    sensors: dict[str, list[dict[str, object]]] = {}
    for name, columns in rows.depths.items():
        inside = sorted(
            (c for c, (depth, _) in columns.items() if low - 1e-9 <= depth <= high + 1e-9),
            key=lambda c: (round(abs(columns[c][0] - (low + high) / 2), 6), columns[c][0]),
        )
        given = table[inside].notna().groupby(table["station"]).any() if inside else pd.DataFrame()
        if one_depth and inside:
            inside = [c for c in inside if given[c].any()][:1]
            given = given[inside]
        there = given.any(axis=1) if inside else pd.Series(dtype=bool)
        if name == target:
            if not there.any():
                raise SmgeoError(_describe_depths(rows, depth_m, target, [d for d, _ in columns.values()]))
            # A station without the target is left out, as of an archive.
            table = table[table["station"].map(there).to_numpy(bool)]
        if there.any():
            best = pd.Series(given.to_numpy(bool).argmax(axis=1), index=given.index)
            pick = table["station"].map(best).to_numpy("int64")
            table = table.assign(**{name: table[inside].to_numpy("float64")[np.arange(len(table)), pick]})
            if name == target:
                for station in there.index[there]:
                    depth, label = columns[inside[int(best[station])]]
                    sensors[str(station)] = [{"sensor": label, "depth_m": [round(depth, 4)] * 2}]
        table = table.drop(columns=list(columns))
    if "depth" not in table:
        return table, sensors
    inside_rows = table[table["depth"].between(low - 1e-9, high + 1e-9)]
    if inside_rows.empty:
        raise SmgeoError(_describe_depths(rows, depth_m, target, table["depth"].dropna().unique()))
    chosen = _nearest_depths(inside_rows, target, (low + high) / 2)
    table = inside_rows[inside_rows["depth"] == inside_rows["station"].map(chosen)]
    sensors |= {str(s): [{"sensor": "", "depth_m": [round(float(depth), 4)] * 2}] for s, depth in chosen.items()}
    return table, sensors


def _nearest_depths(table: pd.DataFrame, target: str, middle: float) -> pd.Series:
    """Return each station's depth that is nearest to the middle: among those with a value of the target, if it has any."""
    near = table[["station", "depth"]].assign(lacks=table[target].isna(), away=(table["depth"] - middle).abs().round(6))
    near = near.drop_duplicates().sort_values(["station", "lacks", "away", "depth"])
    depths: pd.Series = near.drop_duplicates("station").set_index("station")["depth"]
    return depths


def _describe_depths(
    rows: Rows, depth_m: tuple[float, float], target: str, depths: Sequence[float] | np.ndarray
) -> str:
    found = ", ".join(f"{d:g}" for d in sorted(depths)[:20])
    return (
        f"{rows.sources.where}: no station has {target} between {depth_m[0]:g} and {depth_m[1]:g} m; depths in the table: {found} m. Change "
        "target.depth_m"
    )


# ---- days


def _variables(table: pd.DataFrame, catalog: Mapping[str, Feature], *, static: bool) -> list[str]:
    return [str(c) for c in table.columns if c in catalog and (catalog[c].kind == "static") == static]


def _count_same_time(table: pd.DataFrame, sources: Sources) -> pd.Series:
    """Return by station the rows with the time of another row, and warn of them: they may be of another depth or sensor."""
    repeated = table.duplicated(["station", "time"], keep="first")
    if repeated.any():
        row = table.index[int(np.flatnonzero(repeated.to_numpy())[0])]
        warnings.warn(
            f"{sources.where}: {int(repeated.sum())} row(s) of {table['station'][repeated].nunique()} station(s) have the time of another row "
            f"of their station (the first: {table['station'][row]}, {sources.place(int(row))}) and are averaged with it; if they are other "
            "depths or places, name columns of depth or station",
            SmgeoWarning,
        )
    counts: pd.Series = repeated.groupby(table["station"]).sum()
    return counts


def _to_days(
    table: pd.DataFrame, spec: TableSource, catalog: Mapping[str, Feature], where: str
) -> tuple[pd.DataFrame, list[str]]:
    """Return one value of each station's day (station, time), float32, NaN if it has too few rows; and what was summed."""
    names = _variables(table, catalog, static=False)
    keys = [table["station"], table["time"].dt.normalize()]
    grouped = table[names].groupby(keys)
    daily = grouped.mean()
    if spec.min_valid_share > 0:
        daily = daily.where(grouped.count() >= spec.min_valid_share * float(grouped.size().median()))
    summed = []
    for name in names:
        rule = spec.daily.get(name, "sum" if catalog[name].units == "mm d-1" else "mean")
        if rule == "sum":
            sums, several = _sum_days(table[["station", "time", name]].dropna(), spec.min_valid_share or 1.0)
            if several or name in spec.daily:
                daily[name] = sums.reindex(daily.index)
                summed.append(name)
                if sums.notna().sum() == 0 and len(sums):
                    warnings.warn(
                        f"{where}: {name} is summed, and no day has all its rows; set min_valid_share, or daily: {{{name}: mean}} if each "
                        "row is a day's value",
                        SmgeoWarning,
                    )
    return daily.astype("float32"), summed


def _sum_days(rows: pd.DataFrame, share: float) -> tuple[pd.Series, bool]:
    """Return the sum of each station's day, and whether rows are shorter than a day.

    A time counts once. A day needs a share of the rows that the station's usual step gives; missing ones count as the mean of the
    others, as a missing hour is not a dry one.
    """
    name = str(rows.columns[-1])
    if rows.empty:
        return rows.set_index(["station", "time"])[name], False
    once = rows.groupby(["station", "time"], as_index=False)[name].mean()
    step = once.groupby("station")["time"].diff()
    usual = step.dropna().groupby(once["station"]).agg(lambda s: s.mode().iloc[0])
    common = usual.median() if len(usual) else _DAY
    expected = (_DAY / once["station"].map(usual).fillna(common)).round().clip(lower=1)
    grouped = once.assign(expected=expected).groupby(["station", once["time"].dt.normalize()])
    total, n, whole = grouped[name].sum(), grouped[name].size(), grouped["expected"].first()
    sums = (total * (whole / n).clip(lower=1)).where(n >= share * whole - 1e-9)
    return sums, bool((expected > 1).any())


# ---- the cube


def _lay_out(
    daily: pd.DataFrame,
    table: pd.DataFrame,
    ids: Sequence[str],
    times: pd.DatetimeIndex,
    catalog: Mapping[str, Feature],
    sources: Sources,
    source: str,
) -> dict[str, Entry]:
    """Return the variables of the cube: (station, time), or (station,) for static ones."""
    full = daily.reindex(pd.MultiIndex.from_product([ids, times], names=["station", "time"]))
    data: dict[str, Entry] = {}
    for name in [c for c in table.columns if c in catalog]:
        attrs = {**catalog[name].attrs(), "source": source}
        if catalog[name].kind == "static":
            data[name] = ("station",), _constant(table, ids, name, sources), attrs
        else:
            data[name] = ("station", "time"), full[name].to_numpy().reshape(len(ids), times.size), attrs
    return data


def _constant(table: pd.DataFrame, ids: Sequence[str], name: str, sources: Sources) -> np.ndarray:
    """Return the one value of each station."""
    ends = table.groupby("station")[name].agg(["min", "max"]).reindex(list(ids))
    varies = ends[(ends["max"] - ends["min"]) > 1e-5 * ends["max"].abs().clip(lower=1)]
    if not varies.empty:
        least, most = varies.iloc[0]
        raise SmgeoError(
            f"{sources.where}: {name} is static but varies at {varies.index[0]} between {least:g} and {most:g}; set kind: dynamic in "
            "variables"
        )
    return ends["max"].to_numpy("float32")


def _coordinates(
    table: pd.DataFrame,
    ids: Sequence[str],
    times: pd.DatetimeIndex,
    target: str,
    depths: Mapping[str, list[dict[str, object]]],
) -> dict[str, object]:
    first = table.groupby("station").first().reindex(list(ids))
    high = first["station_elevation"] if "station_elevation" in first else pd.Series(np.nan, index=first.index)
    coords = station_coordinates(
        ids,
        times,
        first["latitude"].to_numpy("float64"),
        first["longitude"].to_numpy("float64"),
        elevation=high.where(high.between(*FEATURES["elevation"].valid_range)).to_numpy("float64"),
        networks=list(first["network"].astype(str)),
        sensors=[json.dumps(depths.get(s, [])) for s in ids],
        target=target,
    )
    if "group" in first:
        coords["group"] = ("station", first["group"].astype(object).to_numpy(), {"long_name": "group of stations"})
    return coords
