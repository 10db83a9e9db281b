"""All tables of a run, each laid out once for pages, CSV and LaTeX files, and terminals."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from smgeo.files import folder_beside
from smgeo.report import pair_tables, run_tables, score_tables
from smgeo.report.schema import Provenance, Results
from smgeo.report.table import Table

_INDEX = "index.csv"


def tables_of(results: Results, provenance: Provenance | None = None) -> dict[str, Table]:
    """Return the tables that a run has rows for, by name.

    Parameters
    ----------
    results : Results
        From `read_results`.
    provenance : Provenance, optional
        From `read_provenance`, for the tables `cost` and `stages`.

    Returns
    -------
    dict of str to Table
        `features`, `grid`, `scores`, `against_baseline`, `distances`, `comparisons`, `groups` (and `groups_LABEL` for pages), `cross_validation`,
        `selected_features`, `repeats`,
        `leakage_audit`, `importance`, `learning_curve`, `prediction_intervals`, `applicability`, `search`, `maps`, `rows`, `thresholds`, `cost`,
        `stages`.
    """
    units = results.units
    found = [run_tables.features_table(results.features, "features", "Station cube")]
    if results.grid is not None:
        found.append(run_tables.grid_table(results.grid))
    found += [
        score_tables.scores_table(
            results.models, results.intervals, results.over_stations, units, _about_parts(results)
        ),
        pair_tables.baseline_table(results),
        run_tables.distances_table(results),
        pair_tables.comparisons_table(results.comparisons, units),
        score_tables.groups_table(results),
        *score_tables.groups_by_model(results),
        score_tables.cross_validation_table(results),
        score_tables.selected_features_table(results),
        score_tables.repeats_table(results),
        score_tables.leakage_table(results),
        score_tables.importance_table(results),
        score_tables.learning_curve_table(results),
        score_tables.prediction_intervals_table(results),
        score_tables.applicability_table(results),
        run_tables.search_table(results.search, units),
        run_tables.maps_table(results),
        run_tables.rows_table(results),
        run_tables.thresholds_table(results),
    ]
    if provenance is not None:
        found += [run_tables.cost_table(results, provenance), run_tables.stages_table(provenance)]
    return {table.name: table for table in found if table.rows}


def _about_parts(results: Results) -> str:
    if results.split is not None and results.split.periods is not None:
        return "Test days are later than all data that the models learned from; the stations are those of training."
    return "No model saw a test station in training."


def write_tables(tables: Iterable[Table], folder: str | Path) -> Path:
    """Write each table as `NAME.csv` (all digits) and `NAME.tex` (a booktabs table with few digits), and replace what the folder contained.

    Parameters
    ----------
    tables : iterable of Table
        Tables that are not for files are left out.
    folder : str or Path
        Contains only tables. It is written under another name and renamed.

    Returns
    -------
    Path
        The folder; `index.csv` lists its tables.

    Raises
    ------
    SmgeoError
        If the folder contains anything that smgeo did not write as tables.
    """
    folder = Path(folder)
    written = tables_for_files(tables)
    with folder_beside(folder, _INDEX) as part:
        for table in written:
            table.frame.to_csv(part / f"{table.name}.csv", index=False)
            (part / f"{table.name}.tex").write_text(table.to_latex(), encoding="utf-8")
        index = pd.DataFrame({"table": [t.name for t in written], "rows": [len(t.rows) for t in written]})
        index.to_csv(part / _INDEX, index=False)
    return folder


def tables_for_files(tables: Iterable[Table]) -> list[Table]:
    """Return the tables that have more than a name in their CSV files."""
    return [t for t in tables if "files" in t.outputs and len(t.on("files").columns) > 1]
