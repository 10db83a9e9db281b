"""How docstrings begin: with what a function does or returns, as a reader of xarray's docs expects."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import smgeo

ODD = re.compile(r"(What|Whether|Where|Who|Of)\b")


def docstrings(path: Path) -> list[tuple[int, str]]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [(getattr(n, "lineno", 1), ast.get_docstring(n)) for n in nodes if isinstance(n, kinds)]
    return [(line, text) for line, text in found if text]


def test_docstrings_begin_with_a_verb_or_a_noun():
    root = Path(smgeo.__file__).parent
    known = [(p.relative_to(root), line, text) for p in sorted(root.rglob("*.py")) for line, text in docstrings(p)]
    assert len(known) > 1000
    assert [f"{path}:{line}: {text.splitlines()[0]}" for path, line, text in known if ODD.match(text)] == []
