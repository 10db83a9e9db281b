"""The tables of results on a terminal."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

if TYPE_CHECKING:
    from pathlib import Path

    from smgeo.files import JsonObject
    from smgeo.report.schema import Results
    from smgeo.report.table import Table

# Of larger variables every second, third, ... block is read, so that a command that looks into a store answers at once.
_MOST_VALUES = 50_000_000


def render_table(table: Table) -> RichTable:
    """Return a table for a terminal, with its units after the title."""
    shown = table.on("terminal")
    units = f" ({shown.units})" if shown.units else ""
    out = RichTable(
        title=Text(f"{shown.title}{units}", "table.title"),
        title_justify="left",
        caption=Text(shown.finding, "table.caption") if shown.finding else None,
    )
    for column in shown.columns:
        out.add_column(column.heading, justify=column.align)
    for cells, row in zip(shown.text, shown.rows, strict=True):
        # Text, because a name in brackets would be markup.
        out.add_row(*map(Text, cells), style="bold" if row.marked else None)
    return out


def print_results(results: Results, out: Console) -> None:
    """Print the tables that a run has rows for."""
    from smgeo.report.tables import tables_of

    for table in tables_of(results).values():
        if "terminal" in table.outputs:
            out.print(render_table(table))


def print_contents(path: Path, out: Console) -> None:
    """Print the variables of a cube: unit, range, valid share, values made missing, source."""
    from smgeo.report.run_tables import features_table
    from smgeo.report.schema import GridVariable
    from smgeo.report.variables import describe_variables

    described = describe_variables(path, most=_MOST_VALUES)
    checked = {name: GridVariable.model_validate(about) for name, about in described.items()}
    out.print(render_table(features_table(checked, "features", "Variables")))


def print_evaluation(
    name: str,
    scores: Mapping[str, Mapping[str, object]],
    intervals: Mapping[str, Mapping[str, object]],
    over_stations: Mapping[str, Mapping[str, object]],
    units: str,
    out: Console,
) -> None:
    """Print the scores of a model or a map: part -> scores, intervals, and scores over stations."""
    from smgeo.report.schema import PartScores, ScoreIntervals, StationScores
    from smgeo.report.score_tables import scores_table

    checked = {part: PartScores.model_validate(s) for part, s in scores.items()}
    ends = {part: ScoreIntervals.model_validate(i) for part, i in intervals.items()}
    each = {part: StationScores.model_validate(s) for part, s in over_stations.items()}
    out.print(render_table(scores_table({name: checked}, {name: ends}, {name: each}, units)))


def print_map_scores(found: JsonObject, units: str, out: Console) -> None:
    """Print what `smgeo.evaluate_map` found."""
    from smgeo.report.run_tables import map_checks_table

    scores, intervals, each = ({"unseen": found[key]} for key in ("scores", "intervals", "over_stations"))
    print_evaluation("map", scores, intervals, each, units, out)
    out.print(render_table(map_checks_table(found, units)))


def print_best_trials(name: str, search: JsonObject, nodes: Mapping[Hashable, str], out: Console) -> None:
    """Print the best trials of a search (an entry of `search` in `results.json`), and the node of each."""
    from smgeo.report.run_tables import best_trials
    from smgeo.report.schema import Search

    out.print(render_table(best_trials(name, Search.model_validate(search), nodes)))
