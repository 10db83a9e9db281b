"""Who may import whom, and what `import smgeo` loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import smgeo

ROOT = Path(smgeo.__file__).parent

# From the ground up. Names on one line are strangers to each other.
LAYERS = """
addresses
errors catalog threads processes
bounds
files polygons terrain recipe
cube hpc
sources prepare
models assemble
evaluation tuning
maps
report
study
cli accessor
__init__ __main__
"""
FLOORS = {name: floor for floor, line in enumerate(LAYERS.split("\n")) for name in line.split()}
FILES = sorted(ROOT.rglob("*.py"))


def module_of(path: Path) -> str:
    """`sources.ismn`, `prepare`, `__init__`."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)


MODULES = {module_of(p) for p in FILES}


def imports_of(path: Path) -> set[str]:
    """Modules of smgeo that a file imports, those inside functions and lazy strings too."""
    package = list(path.relative_to(ROOT).parent.parts)
    out = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            out |= {
                a.name.removeprefix("smgeo").lstrip(".") or "__init__"
                for a in node.names
                if a.name.split(".")[0] == "smgeo"
            }
        elif isinstance(node, ast.ImportFrom):
            base = list((node.module or "").split(".")) if node.module else []
            if node.level:
                base = ["smgeo", *package[: len(package) - node.level + 1], *base]
            if not base or base[0] != "smgeo":
                continue
            inner = ".".join(base[1:])
            for alias in node.names:
                deeper = f"{inner}.{alias.name}".lstrip(".")
                out.add(deeper if deeper in MODULES else inner or "__init__")
    return out


GRAPH = {module_of(p): imports_of(p) for p in FILES}


def test_the_walk_sees_imports_that_are_known_to_be_there():
    assert "recipe.study" in GRAPH["study.runs"]
    assert "study.runs" in GRAPH["cli.study"]  # one of them inside a function
    assert len(GRAPH) > 20


def test_every_module_has_a_layer():
    assert sorted(m for m in GRAPH if m.split(".")[0] not in FLOORS) == []


def test_imports_go_downwards_only():
    wrong = [
        f"{module} imports {other}"
        for module, others in GRAPH.items()
        for other in others
        if (here := module.split(".")[0]) != (there := other.split(".")[0]) and FLOORS[there] >= FLOORS[here]
    ]
    assert sorted(wrong) == []


def test_there_is_no_cycle():
    # A package's __init__ imports its modules; a module must not import its package back.
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        path.append(module)
        for other in sorted(GRAPH.get(module, ())):
            visit(other)
        path.pop()
        done.add(module)

    for module in sorted(GRAPH):
        visit(module)


def test_no_module_has_the_name_of_a_public_function():
    names = {m.split(".")[-1] for m in MODULES} - {"__init__"}
    # The public names themselves, and where they live: smgeo.run must be the function whatever was imported before.
    assert sorted(names & set(smgeo.__all__)) == []


def test_every_public_name_is_there():
    assert sorted(n for n in smgeo.__all__ if getattr(smgeo, n).__module__.split(".")[0] != "smgeo") == []


@pytest.mark.parametrize("statement", ["import smgeo", "import smgeo.cli"])
def test_import_is_light(statement):
    heavy = ["tensorflow", "keras", "ydf", "ray", "ee", "torch", "jax"]
    code = f"{statement}\nimport sys\nprint(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
