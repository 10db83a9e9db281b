"""Tables of how a run went: searches, maps, rows removed, the grid cube, stages, time and memory."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace

from smgeo.files import JsonObject
from smgeo.report.schema import Grid, Provenance, Results, Search, Variable
from smgeo.report.score_tables import four_scores
from smgeo.report.table import (
    EVERYWHERE,
    FILES,
    NOT_FILES,
    NOT_TERMINAL,
    PAGE,
    Column,
    Record,
    Table,
    as_count,
    as_number,
    as_params,
    as_percent,
    as_reasons,
    as_value,
    count_column,
    number_column,
    percent_column,
    text_column,
)
from smgeo.report.variables import EXACT_VALUES

_BEST_TRIALS = 10


def search_table(searches: Mapping[str, Search], units: str, nodes: Mapping[Hashable, str] | None = None) -> Table:
    """Return the trials of searches, with the node of each trial if `nodes` is given."""
    best = {model: search.best for model, search in searches.items()}
    records: list[Record] = [
        {"model": model, **dict(trial), "node": (nodes or {}).get(trial.trial)}
        for model, search in searches.items()
        for trial in search.trials
    ]
    return Table.of(
        "search",
        "Search",
        [
            text_column("model"),
            count_column("trial"),
            Column(("node",), "node", align="left", outputs=NOT_FILES, optional=True),
            text_column("status"),
            count_column("epochs"),
            text_column("params", "parameters", format=as_params),
            number_column("validation_rmse", "validation RMSE", units, digits=4),
        ],
        records,
        marked=lambda record: record["trial"] == best[str(record["model"])],
        notes=(
            "The model uses the trial with the lowest RMSE on held-out stations. A stopped trial had fewer epochs, because its RMSE was not among the "
            "best so far. The validation score of the best trial is too optimistic; the search never uses the test part.",
        ),
        outputs=NOT_TERMINAL,
    )


def best_trials(name: str, search: Search, nodes: Mapping[Hashable, str]) -> Table:
    """Return the ten best trials of one search, the best first, and the node of each."""
    scored = [t for t in search.trials if t.status in ("finished", "stopped") and t.validation_rmse is not None]
    best = sorted(scored, key=lambda t: t.validation_rmse or 0.0)[:_BEST_TRIALS]
    table = search_table({name: search.model_copy(update={"trials": best})}, "", nodes)
    title = f"{name}: {len(best)} best of {len(search.trials)} trials (validation RMSE in the target's unit)"
    return replace(table, title=title)


def maps_table(results: Results) -> Table:
    """Return days and missing shares of maps, and scores where the truth is known; without a truth only for pages."""
    variable = results.target.variable if results.target else ""
    known = any(m.truth for m in results.maps.values())
    return Table.of(
        "maps",
        "Maps against the truth" if known else "Maps",
        [
            text_column("model"),
            count_column("days", outputs=PAGE),
            number_column("nodata_share", "share without a value", outputs=PAGE),
            *four_scores(results.units, optional=True),
            count_column("n", "pixel-days", optional=True),
            count_column("pixels", outputs=FILES, optional=True),
        ],
        [
            {
                "model": model,
                "days": len(found.dates),
                "nodata_share": found.nodata_share,
                **(dict(found.truth) if found.truth else {}),
            }
            for model, found in results.maps.items()
        ],
        notes=(
            "Scores are against the known truth of the built-in world, at every pixel." if known else "",
            f"Files: `maps/MODEL/{variable}_DATE.tif` (Cloud-Optimised GeoTIFF, for QGIS and GDAL) and `maps/MODEL.zarr` (for xarray). Axes are in "
            "the units of the grid's CRS; grey: no value. Points are stations in the colour of their observation on that day, crosses are stations "
            "without one. Each model has its own colour scale here.",
            "Difference: estimate minus truth." if known else "",
        ),
        outputs=EVERYWHERE if known else PAGE,
    )


def rows_table(results: Results) -> Table:
    """Return rows left and removed by each step."""
    return Table.of(
        "rows",
        "Rows removed by each step",
        [
            text_column("step"),
            count_column("stations"),
            count_column("rows", "rows left"),
            count_column("removed"),
        ],
        map(dict, results.rows or ()),
        notes=(
            "" if results.models else "The cube has all its rows: the later steps show what preparation would remove.",
            "Outliers are removed only from training stations; no row of a validation or test station is dropped or clipped.",
        ),
        outputs=NOT_TERMINAL,
    )


def distances_table(results: Results) -> Table:
    """Return distances from held-out stations, and from pixels of the grid, to the nearest training station."""
    found = results.distances
    records: list[Record] = []
    if found is not None:
        parts = {"validation stations": found.validation, "test stations": found.test}
        records = [
            {"from": name, "number": part.stations, **dict(part), "shared_pixels": part.shared_pixels or None}
            for name, part in parts.items()
            if part is not None
        ]
        if found.map is not None:
            records.append({"from": "pixels of the grid cube", "number": found.map.pixels, **dict(found.map)})
    return Table.of(
        "distances",
        "Distance to the nearest training station",
        [
            text_column("from"),
            count_column("number"),
            number_column("km_min", "least km", "km", digits=2, optional=True),
            number_column("km_median", "median km", "km", digits=2),
            number_column("km_max", "most km", "km", digits=2),
            count_column("within_1_km", "nearer than 1 km", optional=True),
            count_column("within_100_m", "nearer than 100 m", optional=True),
            Column(("shared_pixels",), "in the pixel of a training station", as_reasons, "left", optional=True),
        ],
        records,
        marked=lambda record: record["from"] == "test stations",
        finding=found.warning if found is not None else "",
        notes=(
            "Great-circle distances. A station shares a pixel of a static variable with a training station that is nearer than the pixel's longer side "
            "and has the same value.",
            "Pixels: a sample of the whole grid, also of pixels without a value."
            if found is not None and found.map
            else "",
        ),
    )


def thresholds_table(results: Results) -> Table:
    """Return scores of the thresholds of outliers that smgeo chose from."""
    return Table.of(
        "thresholds",
        "Threshold of outliers",
        [
            Column(("z",), "threshold", lambda z: "none" if z is None else f"{z:g}"),
            count_column("rows_dropped", "training rows dropped"),
            number_column("validation_rmse", "validation RMSE", results.units, digits=5),
        ],
        map(dict, (results.outliers.thresholds if results.outliers else None) or ()),
        notes=(
            f"RMSE of a quick model in {results.units}. The greatest threshold within one standard error (over validation stations) of the best is "
            "used.",
        ),
        outputs=PAGE,
    )


def cost_table(results: Results, provenance: Provenance) -> Table:
    """Return minutes and peak memory of the search and the fit of each model."""
    records: list[Record] = []
    for model in results.models if provenance.stages else ():
        record: dict[str, object] = {"model": model}
        for label, stage in (("search", f"search {model}"), ("fit", f"model {model}")):
            found = provenance.stages.get(stage)
            if found is not None and found.seconds is not None:
                record[f"{label} minutes"] = round(found.seconds / 60, 3)
            if found is not None and found.peak_memory_bytes is not None:
                record[f"{label} peak MB"] = round(found.peak_memory_bytes / 1e6)
        training = results.training.get(model)
        records.append({**record, "rows": training.rows if training else None})
    return Table.of(
        "cost",
        "Time and memory",
        [
            text_column("model"),
            number_column("search minutes"),
            count_column("search peak MB"),
            number_column("fit minutes"),
            count_column("fit peak MB"),
            count_column("rows"),
        ],
        records,
        notes=("Memory of the run and the processes that it started, including what earlier stages left.",),
        outputs=FILES,
    )


def features_table(features: Mapping[str, Variable], name: str, title: str, finding: str = "") -> Table:
    """Return unit, source and values of the variables of a cube, so that a wrong unit is seen; variables with something odd are marked.

    Columns of a grid's days and of its masked values are left out if no variable has any.
    """
    records: list[Record] = [
        {
            "variable": variable,
            **dict(about),
            "dropped": about.dropped or None,
            "notes": "; ".join(about.notes) or None,
        }
        for variable, about in features.items()
    ]
    return Table.of(
        name,
        title,
        [
            text_column("variable"),
            text_column("units", "unit"),
            text_column("kind", outputs=NOT_TERMINAL),
            Column(("minimum",), "minimum", as_value),
            Column(("median",), "median", as_value),
            Column(("maximum",), "maximum", as_value),
            count_column("days", optional=True),
            Column(("first_day",), "first", align="left", optional=True),
            Column(("last_day",), "last", align="left", optional=True),
            percent_column("valid_share", "valid"),
            Column(("masked_share",), "masked", as_percent(), optional=True),
            Column(("dropped",), "made missing", as_reasons, "left", optional=True),
            Column(("notes",), "notes", align="left", optional=True),
            text_column("source"),
        ],
        records,
        marked=lambda record: bool(record["notes"] or record["dropped"]),
        finding=finding,
        notes=(
            "Valid: share of the values that are not missing; on a grid of those on the days on which any pixel has one, where other pixels are outside "
            "the scenes, without data, or masked.",
            "Masked: share of the values in the files that the quality band removed." if name == "grid" else "",
            "Made missing: values as they were read, of pixels or of the stations' rows; a pixel that is read for two blocks or two features may count "
            "twice.",
            f"Median: of all values up to {EXACT_VALUES:,}, otherwise of every second, third, ... one.",
        ),
    )


def grid_table(grid: Grid) -> Table:
    """Return the variables of the grid cube as `features_table`, with their days."""
    height, width = grid.shape
    finding = f"{height:,} × {width:,} pixels in {grid.crs}, {grid.days.count:,} days from {grid.days.first} to {grid.days.last}."
    return features_table(grid.variables, "grid", "Grid cube", finding)


def stages_table(provenance: Provenance) -> Table:
    """Return time, memory and key of each stage."""
    return Table.of(
        "stages",
        "Provenance",
        [
            text_column("stage"),
            number_column("seconds", digits=1),
            count_column("peak MB"),
            text_column("key"),
        ],
        [
            {
                "stage": name,
                "seconds": stage.seconds,
                "peak MB": None if stage.peak_memory_bytes is None else stage.peak_memory_bytes / 1e6,
                "key": stage.key[:16],
            }
            for name, stage in provenance.stages.items()
        ],
        notes=(
            "Peak MB: memory of the run and the processes that it started while the stage ran, including what earlier stages left.",
        ),
        outputs=PAGE,
    )


def map_checks_table(found: JsonObject, units: str) -> Table:
    """Return the checks of a map besides its scores, from `smgeo.evaluate_map`."""
    number, percent = as_number(), as_percent()
    rows = [(f"stations left out: {reason}", as_count(stations)) for reason, stations in found["left_out"].items()]
    rows.append(("days", as_count(found["days"])))
    if (coverage := found.get("coverage")) is not None:
        level = "" if coverage["level"] is None else f" of intervals of {as_percent(0)(coverage['level'])}"
        shares = f"{percent(coverage['covered'])}, {percent(coverage['covered_stations'])}"
        rows += [
            (f"coverage{level}: rows, mean over stations", shares),
            ("mean width of intervals", number(coverage["width"])),
        ]
    for side, part in found.get("applicability", {}).items():
        rows.append(
            (f"{side} the area of applicability: rows, RMSE", f"{as_count(part['rows'])}, {number(part['rmse'])}")
        )
    time = found["time"]
    lag = time["autocorrelation_1d"]
    months = f"{number(time['monthly_rmse_median'])}, {number(time['monthly_r_median'])} ({time['stations_with_months']} stations)"
    rows += [
        ("autocorrelation at one day: map, stations", f"{number(lag['map'])}, {number(lag['stations'])}"),
        ("monthly means: RMSE, r", months),
        ("steps across block borders, relative to steps next to them", number(found["seams"]["ratio"])),
    ]
    columns = [text_column("check"), text_column("value")]
    records = [{"check": check, "value": value} for check, value in rows]
    return Table.of(
        "map_checks", f"Checks of the map (errors in {units})", columns, records, outputs=frozenset({"terminal"})
    )
