"""Several runs side by side: tables, paired tests between their models, one page."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from smgeo.errors import SmgeoError
from smgeo.evaluation.parts import compare_models
from smgeo.report.html import write_page
from smgeo.report.page import encode_picture
from smgeo.report.results import open_evaluations
from smgeo.report.tables import heading, tables_of, to_text, write_tables

# What is put side by side; searches, importances and rows of each run are in its own report.
_TABLES = ("scores", "cross_validation", "leakage_audit", "maps", "cost")


def compare_runs(runs: Sequence[str | Path], out: str | Path) -> dict[str, pd.DataFrame]:
    """Put runs side by side on one page, with the tables as CSV and LaTeX in a folder of the same name beside it.

    Models of two runs are compared by the paired tests of `smgeo.compare_models` on the rows that are in the test part of both, that both
    estimated, and whose observations are the same.

    Parameters
    ----------
    runs : sequence of paths
        Folders of finished runs, two or more, of different names.
    out : str or Path
        The page, such as `comparison.html`; tables go to `comparison_tables`.

    Returns
    -------
    dict of str to pandas.DataFrame
        The tables, each with the column `run` first.

    Raises
    ------
    SmgeoError
        If a folder holds no finished run, two have the same name, their targets differ in unit, or `out` is no HTML page.
    """
    page = Path(out)
    if page.suffix != ".html":
        raise SmgeoError(f"the page of several runs is an HTML file, such as comparison.html; got {page}")
    found = _read_runs(runs)
    of_runs = {name: tables_of(results, provenance) for name, (_, results, provenance) in found.items()}
    tables = {
        table: pd.concat([of_run[table].assign(run=name) for name, of_run in of_runs.items() if table in of_run])
        for table in _TABLES
        if any(table in of_run for of_run in of_runs.values())
    }
    tables = {name: table[["run", *table.columns.drop("run")]] for name, table in tables.items()}
    pairs = _pairs(found)
    if len(pairs):
        tables["comparisons"] = pairs
    write_tables(tables, page.with_name(f"{page.stem}_tables"))
    units = next(iter(found.values()))[1]["target"]["units"]
    write_page(
        page,
        "comparison.html.j2",
        runs=list(found),
        units=units,
        tables={name: _shown(table) for name, table in tables.items()},
        picture=base64.b64encode(encode_picture(draw_scores(tables["scores"], units))).decode()
        if "scores" in tables
        else None,
    )
    return tables


def _read_runs(runs: Sequence[str | Path]) -> dict[str, tuple[Path, dict[str, Any], dict[str, Any]]]:
    """Name -> folder, results, provenance."""
    found: dict[str, tuple[Path, dict[str, Any], dict[str, Any]]] = {}
    for folder in map(Path, runs):
        for file in ("results.json", "provenance.json"):
            if not (folder / file).is_file():
                raise SmgeoError(f"{folder} holds no finished run (no {file}); run its recipe first")
        results, provenance = (
            json.loads((folder / f"{n}.json").read_text(encoding="utf-8")) for n in ("results", "provenance")
        )
        name = folder.resolve().name
        if name in found:
            raise SmgeoError(f"two runs are in folders named {name!r}; give them different names to tell them apart")
        if not results["models"]:
            raise SmgeoError(f"{folder} is a run without models, so it has no scores to put beside others'")
        found[name] = folder, results, provenance
    units = {name: results["target"]["units"] for name, (_, results, _) in found.items()}
    if len(set(units.values())) > 1:
        told = ", ".join(f"{name} in {unit}" for name, unit in units.items())
        raise SmgeoError(f"runs whose targets have different units can't be put side by side: {told}")
    return found


def _pairs(found: dict[str, tuple[Path, dict[str, Any], dict[str, Any]]]) -> pd.DataFrame:
    """Paired tests between models of different runs."""
    evaluations = {
        f"{run}/{model}": evaluation
        for run, (folder, results, _) in found.items()
        for model, evaluation in open_evaluations(folder, results["models"]).items()
    }
    owner = {name: name.split("/")[0] for name in evaluations}
    table = compare_models(evaluations, pairs=[(a, b) for a in owner for b in owner if a < b and owner[a] != owner[b]])
    if not len(table):
        return table
    ends = pd.DataFrame(table.pop("interval").tolist(), columns=["low", "high"], index=table.index)
    return table.join(ends)


def draw_scores(scores: pd.DataFrame, units: str) -> Figure:
    """Test RMSE of every model of every run, with its interval."""
    test = scores[scores["part"] == "test"].reset_index(drop=True)
    figure = Figure(figsize=(7.0, 0.32 * len(test) + 1.0), layout="constrained")
    axes = figure.subplots()
    at = np.arange(len(test))[::-1]
    axes.hlines(at, test["rmse_low"].astype(float), test["rmse_high"].astype(float), color="#0072B2", lw=1.5)
    axes.plot(test["rmse"], at, "o", color="#0072B2", ms=5)
    axes.set_yticks(at, [f"{r}: {m}" for r, m in zip(test["run"], test["model"], strict=True)], fontsize=8)
    axes.set(xlabel=f"RMSE of the test part, 95 % interval ({units})")
    axes.grid(visible=True, alpha=0.3)
    return figure


def _shown(table: pd.DataFrame) -> dict[str, Any]:
    """Heads, a class of CSS for each column, and rows of cells as text; of intervals that of the RMSE alone, for want of room."""
    ends = [f"{name}_{end}" for name in ("ubrmse", "bias", "r") for end in ("low", "high")]
    cells = to_text(table.drop(columns=ends, errors="ignore"))
    numbers = {name for name in table if pd.api.types.is_numeric_dtype(table[name])}
    kinds = ["" if name in numbers else "ends" if str(name).endswith("interval") else "text" for name in cells]
    return {"heads": [heading(name) for name in cells], "kinds": kinds, "rows": cells.values.tolist()}
