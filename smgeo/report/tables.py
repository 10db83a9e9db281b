"""A run's results as tables: pandas, CSV, and LaTeX for a paper."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from smgeo.files import check_replaceable, replace_folder

_HEADINGS = {
    "rmse": "RMSE",
    "ubrmse": "ubRMSE",
    "n": "rows",
    "r2_mean_of_folds": "R2 mean of folds",
    "r2_pooled": "R2 pooled",
    "r2_station_means": "R2 station means",
    "rmse_pooled": "RMSE pooled",
    "validation_rmse": "validation RMSE",
    "p_value": "p",
    "p_adjusted": "p (Holm)",
    "rmse_median": "median RMSE",
    "ubrmse_median": "median ubRMSE",
    "bias_median": "median bias",
    "r_median": "median r",
}
_INDEX = "index.csv"
_INTERVALS = ("rmse", "ubrmse", "bias", "r")


def tables_of(results: Mapping[str, Any], provenance: Mapping[str, Any] | None = None) -> dict[str, pd.DataFrame]:
    """The tables that a run has something for.

    Parameters
    ----------
    results : mapping
        What `results.json` holds.
    provenance : mapping, optional
        What `provenance.json` holds; it gives the table `cost`.

    Returns
    -------
    dict of str to pandas.DataFrame
        `scores`, `comparisons`, `groups` (of test stations), `cross_validation`, `leakage_audit`, `importance`, `learning_curve`,
        `prediction_intervals`, `applicability`, `search`, `maps`, `rows` (left and removed by each step) and `cost`, each with plain
        columns; errors in the target's unit.
    """
    tables = {
        "scores": _scores(results),
        "comparisons": _comparisons(results),
        "groups": pd.DataFrame(
            [
                {"by": label, "group": row["group"], "model": model, **row}
                for label, models in results.get("groups", {}).items()
                for model, rows in models.items()
                for row in rows
            ]
        ),
        "cross_validation": _by_name(results.get("cross_validation", {}), "model", ("r2_of_folds", "selected")),
        "selected_features": _selected(results),
        "leakage_audit": _by_name(results.get("leakage_audit", {}).get("splits", {}), "rows held out"),
        "importance": _of_models(results.get("importance", {})),
        "learning_curve": _of_models(results.get("learning_curve", {})),
        "prediction_intervals": pd.DataFrame(
            [
                {"model": model, "level": found["level"], **row}
                for model, found in results.get("prediction_intervals", {}).items()
                for row in _coverage_rows(found)
            ]
        ),
        "applicability": _by_name(results.get("applicability", {}), "model", ("weights",)),
        "search": pd.DataFrame(
            [
                {"model": model, **trial, "params": json.dumps(trial["params"])}
                for model, found in results.get("search", {}).items()
                for trial in found["trials"]
            ]
        ),
        "maps": _by_name({n: m.get("truth", {}) for n, m in results.get("maps", {}).items()}, "model"),
        "rows": pd.DataFrame(results.get("rows", [])),
        "cost": _cost(results, provenance or {}),
    }
    return {name: table for name, table in tables.items() if len(table) and len(table.columns) > 1}


def _coverage_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    numbers = ("covered", "covered_stations", "width", "stations", "rows")
    rows = [{"by": "all", "group": "all", **{k: found[k] for k in numbers}}]
    return rows + [{"by": label, **row} for label, groups in found["groups"].items() for row in groups]


def write_tables(tables: Mapping[str, pd.DataFrame], folder: str | Path) -> Path:
    """Write each table as `NAME.csv` (all digits) and `NAME.tex` (a booktabs table, three digits), in place of what the folder held.

    Parameters
    ----------
    tables : mapping
        Name -> table.
    folder : str or Path
        Holds nothing but tables; written beside and renamed.

    Returns
    -------
    Path
        The folder; `index.csv` lists its tables.

    Raises
    ------
    SmgeoError
        If the folder holds something that is not tables of smgeo's.
    """
    folder = Path(folder)
    check_replaceable(folder, _INDEX)
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, table in tables.items():
        table.to_csv(part / f"{name}.csv", index=False)
        (part / f"{name}.tex").write_text(to_latex(table), encoding="utf-8")
    index = pd.DataFrame({"table": list(tables), "rows": [len(table) for table in tables.values()]})
    index.to_csv(part / _INDEX, index=False)
    replace_folder(part, folder, _INDEX)
    return folder


def to_latex(table: pd.DataFrame) -> str:
    """A table for the LaTeX package booktabs; text is escaped, the ends of an interval are one column, numbers are as `cell` writes them."""
    cells = to_text(table)
    kinds = ["r" if name in table and pd.api.types.is_numeric_dtype(table[name]) else "l" for name in cells]
    cells.columns = [heading(name) for name in cells]
    return cells.to_latex(index=False, escape=True, column_format="".join(kinds))


def to_text(table: pd.DataFrame) -> pd.DataFrame:
    """The table with every cell as text, and `NAME_low` and `NAME_high` as one column `NAME interval`, such as `0.061 to 0.088`."""
    cells = table.map(cell)
    for name in cells.columns.intersection(["p_value", "p_adjusted"]):
        cells[name] = ["–" if pd.isna(p) else f"{p:.4f}" for p in table[name]]
    for low in [str(n) for n in table if str(n).endswith("low")]:
        high = low.removesuffix("low") + "high"
        if high not in table:
            continue
        known = table[low].notna() & table[high].notna()
        ends = (cells[low] + " to " + cells[high]).where(known, cell(None))
        cells = cells.assign(**{low: ends}).drop(columns=high).rename(columns={low: f"{low[:-4]} interval".strip()})
    return cells


def heading(name: Any) -> str:
    """A column's name as readers know it."""
    words = str(name).split(" ")
    known = [_HEADINGS.get(word, word.replace("_", " ")) for word in words]
    return " ".join(["95 % interval" if word == "interval" else word for word in known])


def cell(value: Any) -> str:
    """A value as text: three digits, whole numbers with a comma for thousands, a dash for none."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if isinstance(value, int) or float(value).is_integer() else f"{value:.3f}"


def _scores(results: Mapping[str, Any]) -> pd.DataFrame:
    intervals = results.get("intervals", {})
    rows = []
    for model, parts in results.get("models", {}).items():
        for part, scores in parts.items():
            ends = intervals.get(model, {}).get(part, {})
            row: dict[str, Any] = {"model": model, "part": part}
            for name in _INTERVALS:
                low, high = ends.get(name) or (None, None)
                row |= {name: scores[name], f"{name}_low": low, f"{name}_high": high}
            rows.append({**row, "n": scores["n"], "stations": scores["stations"], **scores["per_station"]})
    return pd.DataFrame(rows)


def _comparisons(results: Mapping[str, Any]) -> pd.DataFrame:
    rows = []
    for pair in results.get("comparisons", []):
        low, high = pair["interval"]
        rows.append({**{k: v for k, v in pair.items() if k != "interval"}, "low": low, "high": high})
    return pd.DataFrame(rows)


def _selected(results: Mapping[str, Any]) -> pd.DataFrame:
    """In how many folds each feature was chosen."""
    rows = []
    for model, found in results.get("cross_validation", {}).items():
        counts: dict[str, int] = {}
        for fold in found.get("selected", []):
            for feature in fold:
                counts[feature] = counts.get(feature, 0) + 1
        rows += [
            {"model": model, "feature": f, "folds chosen": n, "folds": found["folds"]}
            for f, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        ]
    return pd.DataFrame(rows)


def _by_name(entries: Mapping[str, Mapping[str, Any]], label: str, without: tuple[str, ...] = ()) -> pd.DataFrame:
    return pd.DataFrame(
        [{label: name, **{k: v for k, v in entry.items() if k not in without}} for name, entry in entries.items()]
    )


def _of_models(models: Mapping[str, list[dict[str, Any]]]) -> pd.DataFrame:
    return pd.DataFrame([{"model": model, **row} for model, rows in models.items() for row in rows])


def _cost(results: Mapping[str, Any], provenance: Mapping[str, Any]) -> pd.DataFrame:
    """Minutes and peak memory of each model's search and fit."""
    stages = provenance.get("stages", {})
    rows = []
    for model in results.get("models", {}):
        row: dict[str, Any] = {"model": model}
        for word in ("search", "model"):
            stage = stages.get(f"{word} {model}", {})
            label = "fit" if word == "model" else word
            memory = stage.get("peak_memory_bytes")
            row[f"{label} minutes"] = round(stage["seconds"] / 60, 3) if stage else None
            row[f"{label} peak MB"] = None if memory is None else round(memory / 1e6)
        row["rows"] = results.get("training", {}).get(model, {}).get("rows")
        rows.append(row)
    return pd.DataFrame(rows) if stages else pd.DataFrame()
