"""Count of what was tried and what failed, by stage and by how a run was ended."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]


def chosen_rounds(count: int) -> Iterable[int]:
    """Return the numbers of the rounds: so many, or those that `SMGEO_KILLS` names, such as `7` or `7-12`."""
    if not (asked := os.environ.get("SMGEO_KILLS")):
        return range(count)
    first, _, last = asked.partition("-")
    return range(int(first), int(last or first) + 1)


class Tally:
    """A table of stage × ending, in `runs/kills/NAME.txt` after every entry, so that a long test can be watched."""

    def __init__(self, name: str) -> None:
        self._path = ROOT / "runs" / "kills" / f"{name}.txt"
        self._tried: Counter[tuple[str, str]] = Counter()
        self._failed: Counter[tuple[str, str]] = Counter()
        self.failures: list[str] = []

    def add(self, stage: str, ending: str, where: str, wrong: str | None) -> None:
        """Count one; `where` names the example."""
        self._tried[stage, ending] += 1
        if wrong is not None:
            self._failed[stage, ending] += 1
            self.failures.append(f"{where}, {stage}, {ending}: {wrong}")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(str(self) + "\n", encoding="utf-8")

    def __str__(self) -> str:
        """Return the table, a cell being `tried` or `tried (failed)`, and the failures under it."""
        stages, endings = (list(dict.fromkeys(key[i] for key in self._tried)) for i in (0, 1))
        rows = [["", *endings, "all"]]
        for stage in [*stages, "all"]:
            cells = [self._cell(stage, ending) for ending in [*endings, "all"]]
            rows.append([stage, *cells])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        return "\n".join([*lines, *self.failures])

    def _cell(self, stage: str, ending: str) -> str:
        def count(counter: Counter[tuple[str, str]]) -> int:
            return sum(n for (s, e), n in counter.items() if stage in (s, "all") and ending in (e, "all"))

        tried, failed = count(self._tried), count(self._failed)
        return f"{tried} ({failed})" if failed else str(tried)
