"""Tables of a run's results and of a search on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Column, Table


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def print_results(results: dict[str, Any], out: Console) -> None:
    """Print the tables that a run has something for."""
    tables = (
        scores_table(results) if results["models"] else None,
        _comparisons_table(results),
        _intervals_table(results),
        _applicability_table(results),
        _cross_validation_table(results),
        _leakage_table(results),
        _maps_table(results),
    )
    for table in (*tables, _grid_table(results)):
        if table is not None:
            out.print(table)


def print_map_scores(found: dict[str, Any], out: Console) -> None:
    """Print what `smgeo.evaluate_map` found."""
    scores = {"models": {"map": {"unseen": found["scores"]}}, "intervals": {"map": {"unseen": found["intervals"]}}}
    out.print(scores_table(scores))
    table = Table("check", "value", title="the map", title_justify="left")
    for reason, stations in found["left_out"].items():
        table.add_row(f"stations left out: {reason}", str(stations))
    table.add_row("days", str(found["days"]))
    if (coverage := found.get("coverage")) is not None:
        level = "" if coverage["level"] is None else f" of intervals of {coverage['level']:.0%}"
        table.add_row(
            f"coverage{level}: rows, mean over stations",
            f"{coverage['covered']:.1%}, {coverage['covered_stations']:.1%}",
        )
        table.add_row("mean width of intervals", _number(coverage["width"]))
    for side, part in found.get("applicability", {}).items():
        table.add_row(f"{side} the area of applicability: rows, RMSE", f"{part['rows']:,}, {_number(part['rmse'])}")
    time = found["time"]
    lag = time["autocorrelation_1d"]
    table.add_row("autocorrelation of a day: map, stations", f"{_number(lag['map'])}, {_number(lag['stations'])}")
    months = f"{_number(time['monthly_rmse_median'])}, {_number(time['monthly_r_median'])} ({time['stations_with_months']} stations)"
    table.add_row("means of months: RMSE, r", months)
    table.add_row("steps across borders of blocks over steps beside them", _number(found["seams"]["ratio"]))
    out.print(table)


def _grid_table(results: dict[str, Any]) -> Table | None:
    if "grid" not in results:
        return None
    grid = results["grid"]
    rows, columns = grid["shape"]
    title = f"grid cube: {rows} x {columns} pixels in {grid['crs']}, {grid['days']['first']} to {grid['days']['last']}"
    table = Table("variable", "unit", "kind", title=title, title_justify="left")
    for column in ("days with a value", "first", "last", "valid", "masked"):
        table.add_column(column, justify="right")
    for name, v in grid["variables"].items():
        shares = [f"{v[k]:.1%}" if k in v else "" for k in ("valid_share", "masked_share")]
        days = [str(v.get(k) or "") for k in ("days", "first_day", "last_day")]
        table.add_row(name, v["units"], v["kind"], *days, *shares)
    return table


def scores_table(results: dict[str, Any]) -> Table:
    """Scores of each model on each part."""
    table = Table("model", "part", title="scores (m3 m-3 for a soil-moisture target)", title_justify="left")
    for column in ("RMSE", "95 % interval", "ubRMSE", "bias", "r", "rows", "stations", "median RMSE"):
        table.add_column(column, justify="right")
    intervals = results.get("intervals", {})
    for name, parts in results["models"].items():
        for part, s in parts.items():
            ends = intervals.get(name, {}).get(part, {}).get("rmse") or [None, None]
            interval = "-" if ends[0] is None else f"{_number(ends[0])} to {_number(ends[1])}"
            numbers = [_number(s["rmse"]), interval, *(_number(s[k]) for k in ("ubrmse", "bias", "r"))]
            table.add_row(
                name, part, *numbers, f"{s['n']:,}", str(s["stations"]), _number(s["per_station"]["rmse_median"])
            )
    return table


def _comparisons_table(results: dict[str, Any]) -> Table | None:
    if not results.get("comparisons"):
        return None
    title = "pairs of models in the test part, on rows that both estimated"
    table = Table("first", "second", title=title, title_justify="left")
    for column in ("RMSE first", "RMSE second", "difference, 95 % interval", "stations better", "p (Holm)", "rows"):
        table.add_column(column, justify="right")
    for c in results["comparisons"]:
        low, high = c["interval"]
        difference = f"{_number(c['difference'])} ({_number(low)} to {_number(high)})"
        better = f"{c['stations_first_better']} : {c['stations_second_better']}"
        numbers = (_number(c["rmse_first"]), _number(c["rmse_second"]), difference, better, _number(c["p_adjusted"], 4))
        table.add_row(c["first"], c["second"], *numbers, f"{c['n']:,}")
    return table


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _intervals_table(results: dict[str, Any]) -> Table | None:
    if not results.get("prediction_intervals"):
        return None
    table = Table("model", title="prediction intervals at test stations", title_justify="left")
    for column in ("wanted", "rows covered", "mean of stations", "mean width", "rows", "stations"):
        table.add_column(column, justify="right")
    for name, c in results["prediction_intervals"].items():
        shares = f"{c['level']:.0%}", _share(c["covered"]), _share(c["covered_stations"])
        table.add_row(name, *shares, _number(c["width"]), f"{c['rows']:,}", str(c["stations"]))
    return table


def _applicability_table(results: dict[str, Any]) -> Table | None:
    if not results.get("applicability"):
        return None
    table = Table("model", title="area of applicability at test stations", title_justify="left")
    for column in ("threshold", "rows inside", "RMSE inside", "RMSE outside", "rows"):
        table.add_column(column, justify="right")
    for name, a in results["applicability"].items():
        errors = _number(a["rmse_inside"]), _number(a["rmse_outside"])
        table.add_row(name, _number(a["threshold"]), _share(a["share_inside"]), *errors, f"{a['rows']:,}")
    return table


def _cross_validation_table(results: dict[str, Any]) -> Table | None:
    if "cross_validation" not in results:
        return None
    table = Table("model", "method", title="cross-validation", title_justify="left")
    for column in ("folds", "R2 mean of folds", "R2 pooled", "R2 station means", "RMSE pooled", "rows"):
        table.add_column(column, justify="right")
    for name, c in results["cross_validation"].items():
        numbers = [_number(c[k]) for k in ("r2_mean_of_folds", "r2_pooled", "r2_station_means", "rmse_pooled")]
        table.add_row(name, c["method"], str(c["folds"]), *numbers, f"{c['n']:,}")
    return table


def _leakage_table(results: dict[str, Any]) -> Table | None:
    if "leakage_audit" not in results:
        return None
    audit = results["leakage_audit"]
    table = Table("rows held out", title="leakage audit", title_justify="left", caption=audit["meaning"])
    for column in (
        "RMSE",
        "ubRMSE",
        "bias",
        "r",
        "R2",
        "R2 mean of folds",
        "R2 station means",
        "rows",
        "km to training",
    ):
        table.add_column(column, justify="right")
    for method, s in audit["splits"].items():
        scores = ("rmse", "ubrmse", "bias", "r", "r2_pooled", "r2_mean_of_folds", "r2_station_means")
        table.add_row(method, *(_number(s[k]) for k in scores), f"{s['n']:,}", _number(s["km_median"]))
    return table


def _maps_table(results: dict[str, Any]) -> Table | None:
    if not any("truth" in m for m in results.get("maps", {}).values()):
        return None
    table = Table("model", title="maps against the truth", title_justify="left")
    for column in ("RMSE", "ubRMSE", "bias", "r", "pixel-days"):
        table.add_column(column, justify="right")
    for name, m in results["maps"].items():
        numbers = [_number(m["truth"][k]) for k in ("rmse", "ubrmse", "bias", "r")]
        table.add_row(name, *numbers, f"{m['truth']['n']:,}")
    return table


def trials_table(name: str, entry: dict[str, Any], nodes: Mapping[Any, str]) -> Table:
    """The ten best trials of a search, and on which node each ran."""
    scored = [t for t in entry["trials"] if t["status"] in ("finished", "stopped")]
    best = sorted(scored, key=lambda t: t["validation_rmse"])[:10]
    title = (
        f"{name}: {len(best)} best of {len(entry['trials'])} trials (RMSE at stations held out, in the target's unit)"
    )
    table = Table(
        "trial",
        "node",
        "status",
        Column("RMSE", justify="right"),
        *best[0]["params"],
        title=title,
        title_justify="left",
    )
    for trial in best:
        params = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in trial["params"].values())
        table.add_row(
            str(trial["trial"]), nodes[trial["trial"]], trial["status"], _number(trial["validation_rmse"], 4), *params
        )
    return table
