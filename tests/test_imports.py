"""Who may import whom, and what `import smgeo` loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import smgeo

ROOT = Path(smgeo.__file__).parent

# From the ground up; a module imports from its own layer only where `SIBLINGS` says so.
LAYERS = [
    {"errors", "catalog", "memory", "recipe_yaml", "threads"},
    {"specs", "pages", "progress", "shards", "stages", "terrain", "outline"},
    {
        "model_specs",
        "output_specs",
        "preparation_specs",
        "raster_specs",
        "scores",
        "search_specs",
        "texture",
        "validation_specs",
    },
    {"recipe", "regions"},
    {"store"},
    {"cube"},
    {"sources", "prepare", "hpc"},
    {"models"},
    {"search_space"},
    {"searchers"},
    {"assemble", "evaluation"},
    {"objective", "trials"},
    {"ray_trials"},
    {"tuning"},
    {"report_cube", "summary", "describe", "diagnostics", "inputs", "leakage", "tables"},
    {"uncertainty"},
    {"maps"},
    {"report"},
    {"comparison"},
    {"cube_stages"},
    {"model_stages"},
    {"evaluation_stages"},
    {"study"},
    {"accessor", "cli_options", "cli_tables"},
    {"cli_hpc"},
    {"cli", "__init__"},
    {"__main__"},
]
WORLD_PARTS = {"sources.physics", "sources.world_landscape", "sources.world_stations"}
# Parts that readers of station archives share.
STATION_PARTS = {"sources.archive", "sources.sensors"}
# Parts that readers of rasters share: from source pixels to the grid's or a station's, and to one value a day.
RASTER_PARTS = {"sources.daily", "sources.footprint", "sources.units", "sources.warp"}
SCENE_PARTS = RASTER_PARTS | {
    "sources.dates",
    "sources.files",
    "sources.layers",
    "sources.scenes",
    "sources.scene_datasets",
}
# Parts of the reader of Earth Engine, from the session up; the last two assemble them on a grid and at stations.
EARTHENGINE_PARTS = {
    f"sources.earthengine_{part}"
    for part in ("session", "requests", "products", "expressions", "plan", "tasks", "grid", "stations")
}
PARTS = {
    **dict.fromkeys(EARTHENGINE_PARTS | {"sources.earthengine"}, RASTER_PARTS | EARTHENGINE_PARTS),
    "sources.footprint": {"sources.daily", "sources.warp"},
    "sources.layers": RASTER_PARTS | {"sources.files"},
    "sources.scenes": RASTER_PARTS | {"sources.files", "sources.layers"},
    "sources.scene_datasets": RASTER_PARTS | {"sources.files", "sources.layers", "sources.scenes"},
    "sources.geotiff": SCENE_PARTS,
    "sources.stac": SCENE_PARTS | {"sources.stac_items", "sources.stac_search"},
    "sources.stac_items": SCENE_PARTS | {"sources.stac_search"},
    "sources.stac_search": SCENE_PARTS,
    "sources.gridded": RASTER_PARTS | {"sources.dates", "sources.gridded_files", "sources.gridded_headers"},
    "sources.gridded_headers": {"sources.gridded_files"},
    "sources.gridded_files": RASTER_PARTS,
    "sources.world": WORLD_PARTS,
    **dict.fromkeys(WORLD_PARTS, WORLD_PARTS),
    "sources.sensors": {"sources.archive"},
    "sources.ismn_files": STATION_PARTS,
    "sources.ismn": STATION_PARTS | {"sources.ismn_files"},
    "sources.tereno": STATION_PARTS,
}
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


def layer(module: str) -> int:
    top = module.split(".")[0]
    return next(i for i, names in enumerate(LAYERS) if top in names)


GRAPH = {module_of(p): imports_of(p) for p in FILES}


def test_the_walk_sees_imports_that_are_known_to_be_there():
    assert "recipe" in GRAPH["study"]
    assert "models" in GRAPH["study"]  # one of them inside a function
    assert (
        "sources.physics" in GRAPH["sources.world"] | GRAPH["sources.world_landscape"] | GRAPH["sources.world_stations"]
    )
    assert len(GRAPH) > 20


def test_every_module_has_a_layer():
    known = set().union(*LAYERS)
    assert sorted(m for m in GRAPH if m.split(".")[0] not in known) == []


def test_imports_go_downwards_only():
    wrong = [
        f"{module} imports {other}"
        for module, others in GRAPH.items()
        for other in others
        if module.split(".")[0] != other.split(".")[0] and layer(other) >= layer(module)
    ]
    assert sorted(wrong) == []


def test_sources_are_strangers_to_each_other():
    wrong = []
    for module, others in GRAPH.items():
        if not module.startswith("sources."):
            continue
        allowed = PARTS.get(module, set())
        wrong += [f"{module} imports {o}" for o in others if o.split(".")[0] == "sources" and o not in allowed]
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
