"""Recipes with any of their values replaced, removed or moved: each is read, or refused in words; what is read is written and read alike."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml

from tests.fuzz.examples import ROOT, try_examples
from tests.fuzz.test_forged_models import forge

RECIPES = sorted(p.name for p in (ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_changed_recipes_are_read_or_refused(recipe, reader, tmp_path):
    document = yaml.safe_load((ROOT / "recipes" / recipe).read_text(encoding="utf-8"))

    def harm(folder: Path, rng: random.Random) -> str:
        changed = forge(document, rng)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(changed, allow_unicode=True), encoding="utf-8")
        return recipe

    def judge(expected: dict, answer: dict, folder: Path) -> str | None:
        says = answer.get("says", "")
        if answer["outcome"] not in ("read", "refused"):
            return f"{answer['outcome']}: {says[-600:]}"
        return f"{len(says)} letters: {says[:200]}" if len(says) > 4000 else None

    assert try_examples(f"recipe-{Path(recipe).stem}", "recipe", reader, tmp_path, harm, judge) == {}
