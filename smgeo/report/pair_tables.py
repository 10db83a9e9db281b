"""Tables of paired tests: between models, and of each model against the plain forest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from smgeo.report.schema import Comparison, Results
from smgeo.report.table import (
    FILES,
    NOT_TERMINAL,
    Column,
    Table,
    as_pair,
    count_column,
    interval_column,
    number_column,
    text_column,
)

# Below this adjusted p-value two models differ beyond chance.
_SIGNIFICANT = 0.05


def comparisons_table(pairs: Iterable[Comparison], units: str) -> Table:
    """Return paired tests between models."""
    pairs = list(pairs)
    sure = sum(p.p_adjusted is not None and p.p_adjusted < _SIGNIFICANT for p in pairs)
    differ = f"{sure} of {len(pairs)} pairs differ" if sure else "No pair differs"
    finding = _cannot_tell(pairs) or f"{differ} beyond chance (adjusted p below {_SIGNIFICANT:g})."
    return _pairs_table("comparisons", "Which model is better", pairs, units, finding)


def baseline_table(results: Results) -> Table:
    """Return the tests of the models against a plain forest, with what they say as the finding."""
    pairs, units = results.against_baseline, results.units
    # The test is of clusters, and the difference of rows: where they contradict each other, neither model is better.
    words = {"beats": [p.first for p in pairs if _is_sure(p) and (p.effect or 0) < 0 and p.difference <= 0]}
    words["is worse than"] = [p.first for p in pairs if _is_sure(p) and (p.effect or 0) > 0 and p.difference >= 0]
    told = {name for names in words.values() for name in names}
    words["cannot be told from"] = [p.first for p in pairs if p.first not in told]
    found = "; ".join(f"{', '.join(names)} {verb} the plain forest" for verb, names in words.items() if names)
    finding = _cannot_tell(pairs) or f"{found} (at an adjusted p of {_SIGNIFICANT:g})."
    note = (
        "The plain forest is scikit-learn's with 100 trees, leaves of 5 rows or more, a third of the features at a split and at most 60,000 rows a "
        "tree, on single days, with the recipe's preparation; its parameters are the same in every run. Of a model that cannot be told from it "
        "there is no evidence that it is worth its trouble."
    )
    return _pairs_table("against_baseline", "Against a plain forest", pairs, units, finding, note)


def _is_sure(pair: Comparison) -> bool:
    return pair.p_adjusted is not None and pair.p_adjusted < _SIGNIFICANT


def _cannot_tell(pairs: Sequence[Comparison]) -> str:
    """Return a sentence if no pair has enough clusters for a test to tell anything."""
    if not pairs or any(p.clusters_unequal is None for p in pairs):
        return ""
    # All clusters of one sign have the least p, 2 / 2^m, which Holm multiplies by the number of pairs.
    most = max(p.clusters_unequal or 0 for p in pairs)
    if len(pairs) * 2 / 2**most < _SIGNIFICANT:
        return ""
    return (
        f"The test cannot tell: with {most} clusters of stations in which models differ, and {len(pairs)} pair(s), no adjusted p can fall below "
        f"{_SIGNIFICANT:g}, whatever the models."
    )


def _pairs_table(name: str, title: str, pairs: Sequence[Comparison], units: str, finding: str, note: str = "") -> Table:
    return Table.of(
        name,
        title,
        [
            text_column("first"),
            text_column("second"),
            number_column("rmse_first", "RMSE first", units),
            number_column("rmse_second", "RMSE second", units),
            number_column("difference", unit=units),
            interval_column("95 % interval", units),
            Column(("stations_first_better", "stations_second_better"), "stations better, first : second", as_pair),
            number_column("effect", outputs=NOT_TERMINAL, digits=2),
            number_column("p_value", "p", outputs=NOT_TERMINAL, digits=4),
            number_column("p_adjusted", "p (Holm)", digits=4),
            count_column("n", "rows"),
            count_column("stations", outputs=FILES),
            count_column("clusters", outputs=NOT_TERMINAL, optional=True),
        ],
        [{**dict(p), "low": p.interval[0], "high": p.interval[1]} for p in pairs],
        finding=finding,
        notes=(
            note,
            "Test part, on the rows that both models estimated; RMSEs are pooled. p: two-sided Wilcoxon signed-rank test on the differences of "
            "station RMSEs, averaged in each cluster of stations; p (Holm) is adjusted for the number of pairs. Effect: matched-pairs rank-biserial "
            "correlation, from -1 (the first model is better in every cluster) to 1 (the second is). A difference whose interval contains 0, or an "
            f"adjusted p above {_SIGNIFICANT:g}, is no evidence that one model is better.",
        ),
    )
