"""pyproject.toml declares every package that smgeo imports, and no package that nothing uses."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import lru_cache
from pathlib import Path

import smgeo

ROOT = Path(smgeo.__file__).parent
PROJECT = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Import names that differ from the name of their distribution.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "ax": "ax-platform",
    "distributed": "dask",
    "ee": "earthengine-api",
    "google-oauth2": "google-auth",
    "googleapiclient": "google-api-python-client",
    "sklearn": "scikit-learn",
    "xgboost": "xgboost-cpu",
    "yaml": "pyyaml",
    "yggdrasil_decision_forests": "ydf",
}
# Packages that share their first name with others: the second name decides.
NAMESPACES = ("google", "odc")
# Declared although no module imports them.
USED_OTHERWISE = {
    "cftime": "xarray decodes calendars other than the standard one with it",
    "cryptography": "distributed makes the certificates of workers with it",
    "pyarrow": "pandas reads Parquet with it",
    "torch": "pinned by constraints.txt, because ax-platform would bring a build with CUDA",
}
# Extras for developers, which import in tests and on the command line.
FOR_DEVELOPERS = ("all", "bench", "dev", "test")


def _distribution(module: str) -> str:
    first, *rest = module.split(".")
    name = "-".join([first, *rest[:1]]) if first in NAMESPACES else first
    return DISTRIBUTIONS.get(name, name).lower().replace("_", "-")


@lru_cache
def _imported() -> dict[str, set[str]]:
    """Distribution -> files of smgeo that import it, those inside functions too."""
    found: dict[str, set[str]] = {}
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
                if node.module in NAMESPACES:
                    modules = [f"{node.module}.{a.name}" for a in node.names]
            for module in modules:
                if module.split(".")[0] not in {*sys.stdlib_module_names, "smgeo"}:
                    found.setdefault(_distribution(module), set()).add(str(file.relative_to(ROOT)))
    return found


def _declared() -> set[str]:
    extras = PROJECT["optional-dependencies"]
    needed = [*PROJECT["dependencies"], *(r for name in set(extras) - {*FOR_DEVELOPERS} for r in extras[name])]
    return {re.split(r"[\[>=<!~; ]", r)[0].lower() for r in needed}


def test_every_import_is_declared():
    imported = _imported()
    assert {"xarray", "odc-geo", "google-auth"} <= set(imported)  # the walk sees what is known to be there
    assert {name: imported[name] for name in sorted(set(imported) - _declared())} == {}


def test_nothing_is_declared_that_nothing_uses():
    assert sorted(_declared() - set(_imported()) - set(USED_OTHERWISE)) == []


def test_exceptions_are_needed():
    assert sorted(set(USED_OTHERWISE) & set(_imported())) == []
    assert sorted(set(USED_OTHERWISE) - _declared()) == []


def test_the_package_says_that_it_has_types():
    assert (ROOT / "py.typed").is_file()
