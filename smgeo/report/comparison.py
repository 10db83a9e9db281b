"""Several runs side by side: tables, paired tests between their models, one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from smgeo.errors import SmgeoError
from smgeo.evaluation.parts import compare_models
from smgeo.report.html import embed, write_page
from smgeo.report.map_pictures import without_formulas
from smgeo.report.page import encode_picture
from smgeo.report.pair_tables import comparisons_table
from smgeo.report.results import open_evaluations, records_of
from smgeo.report.schema import Comparison, Provenance, Results, read_provenance, read_results
from smgeo.report.table import Table, join_tables, text_column
from smgeo.report.tables import tables_of, write_tables

# Tables put side by side, in the order of the page; searches, importances and rows of each run are in its own report.
_TABLES = ("scores", "cross_validation", "leakage_audit", "maps", "cost")


class _Run(NamedTuple):
    folder: Path
    results: Results
    provenance: Provenance


def compare_runs(runs: Sequence[str | Path], out: str | Path) -> dict[str, pd.DataFrame]:
    """Put runs side by side on one page, and the tables as CSV and LaTeX in a folder of the same name next to it.

    Models of two runs are compared by the paired tests of `smgeo.compare_models`, on the rows that are in the test part of both, that both
    estimated, and that have the same observation.

    Parameters
    ----------
    runs : sequence of paths
        Folders of two or more finished runs with different names.
    out : str or Path
        The page, such as `comparison.html`; tables go to `comparison_tables`.

    Returns
    -------
    dict of str to pandas.DataFrame
        The tables, each with the column `run` first (`comparisons`: models as `RUN/MODEL`).

    Raises
    ------
    SmgeoError
        If a folder is not a finished run with models, two have the same name, their targets differ in unit, or `out` is not an HTML file.
    """
    page = Path(out)
    if page.suffix != ".html":
        raise SmgeoError(f"{page}: the page of several runs is an HTML file; give a name such as comparison.html")
    found = _read_runs(runs)
    units = next(iter(found.values())).results.units
    of_runs = {name: tables_of(run.results, run.provenance) for name, run in found.items()}
    tables = {
        name: join_tables({run: tables[name] for run, tables in of_runs.items() if name in tables}, text_column("run"))
        for name in _TABLES
        if any(name in tables for tables in of_runs.values())
    }
    if (pairs := _compare_pairs(found, units)).rows:
        tables = {pairs.name: pairs, **tables}
    write_tables(tables.values(), page.with_name(f"{page.stem}_tables"))
    scores = tables["scores"].frame
    write_page(
        page,
        "comparison.html.j2",
        runs=list(found),
        units=units,
        tables=list(tables.values()),
        scores_picture=embed(encode_picture(draw_scores(scores, units))),
    )
    return {name: table.frame for name, table in tables.items()}


def _read_runs(runs: Sequence[str | Path]) -> dict[str, _Run]:
    """Read each run, by the name of its folder."""
    found: dict[str, _Run] = {}
    for folder in map(Path, runs):
        results, provenance = read_results(folder), read_provenance(folder)
        name = folder.resolve().name
        if name in found:
            raise SmgeoError(f"two runs are in folders named {name!r}; rename one of them")
        if not results.models:
            raise SmgeoError(f"{folder} is a run without models, so it has no scores to compare; leave it out")
        found[name] = _Run(folder, results, provenance)
    units = {name: run.results.units for name, run in found.items()}
    if len(set(units.values())) > 1:
        listed = ", ".join(f"{name} in {unit}" for name, unit in units.items())
        raise SmgeoError(
            f"cannot compare runs with targets in different units ({listed}); compare runs with the same unit"
        )
    return found


def _compare_pairs(found: Mapping[str, _Run], units: str) -> Table:
    """Return paired tests between models of different runs."""
    evaluations = {
        f"{name}/{model}": evaluation
        for name, run in found.items()
        for model, evaluation in open_evaluations(run.folder, {model: {} for model in run.results.models}).items()
    }
    owner = {name: name.split("/")[0] for name in evaluations}
    pairs = [(a, b) for a in owner for b in owner if a < b and owner[a] != owner[b]]
    return comparisons_table(
        map(Comparison.model_validate, records_of(compare_models(evaluations, pairs=pairs))), units
    )


@without_formulas()
def draw_scores(scores: pd.DataFrame, units: str) -> Figure:
    """Draw the test RMSE of every model of every run, with its interval."""
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
