"""Stages of a run that say what its models are worth: cross-validation, importance, learning curves, the leakage audit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from smgeo.evaluation.cross_validation import Learner, cross_validate, select_in_folds
from smgeo.evaluation.importance import learning_curve, permutation_importance
from smgeo.evaluation.leakage import audit_leakage
from smgeo.evaluation.uncertainty import interval_coverage, score_applicability
from smgeo.models import load_model
from smgeo.prepare import Split
from smgeo.recipe.validation import CrossValidationSpec, ImportanceSpec, LearningCurveSpec
from smgeo.report.results import describe_coverage, records_of
from smgeo.study.models import ModelStages


class EvaluationStages(ModelStages):
    """The stages between a run's fitted models and its results."""

    def _cross_validate(self, cube: xr.Dataset) -> dict[str, Any]:
        recipe = self.recipe
        out: dict[str, Any] = {}
        for number, spec in enumerate(recipe.cross_validation):
            selected = self._select_in_folds(cube, spec, number) if spec.select_features else None
            for name in spec.models or recipe.models:
                entry = name if selected is None else f"{name}_selected"
                entry = entry if entry not in out else f"{entry}_{spec.method}"
                entry = entry if entry not in out else f"{entry}_{number}"
                out[entry] = self._cross_validate_one(cube, name, spec, number, selected)
        return out

    def _rows_with_target(self, cube: xr.Dataset) -> xr.Dataset:
        """Features and target of the stations that have any, loaded."""
        with_target = cube.isel(station=np.flatnonzero(cube[self.target].notnull().any("time").values))
        return with_target[[*self.recipe.cube_features, self.target]].assign_attrs(cube.attrs).load()

    def _select_in_folds(self, cube: xr.Dataset, spec: CrossValidationSpec, number: int) -> list[list[str]]:
        recipe = self.recipe

        def work(progress: Callable[[int, int], None]) -> list[list[str]]:
            rows, features = self._rows_with_target(cube), recipe.features
            return select_in_folds(rows, spec, features, self.target, seed=recipe.seed, progress=progress)

        asked = spec.model_dump(mode="json", exclude={"models"})
        inputs = {"spec": asked, "seed": recipe.seed, "features": recipe.features, **self.key("stations")}
        found: list[list[str]] = self.stage(f"features of folds {number}", inputs, [], work)
        return found

    def _cross_validate_one(
        self,
        cube: xr.Dataset,
        name: str,
        spec: CrossValidationSpec,
        number: int,
        selected: list[list[str]] | None,
    ) -> dict[str, Any]:
        recipe = self.recipe
        learner = Learner.of(lambda: self.new_model(name), self.days_seen(name))

        def work(progress: Callable[[int, int], None]) -> dict[str, Any]:
            found = cross_validate(
                learner,
                self._rows_with_target(cube),
                spec,
                recipe.prepare_of(name),
                recipe.features,
                self.target,
                selected=selected,
                seed=recipe.seed,
                progress=progress,
            )
            return dict(found)

        inputs = {
            "model": recipe.models[name].model_dump(mode="json"),
            "seed": recipe.seed,
            "spec": spec.model_dump(mode="json", exclude={"models"}),
            "selected": selected,
            "prepare": recipe.prepare_of(name).model_dump(mode="json"),
            **self.key("stations"),
        }
        return self.stage(f"cross-validation {number} {spec.method} {name}", inputs, [], work)

    def _diagnose(self, cube: xr.Dataset, split: Split) -> dict[str, Any]:
        """`importance` and `learning_curve` of the results, where the recipe asks for them."""
        recipe, out = self.recipe, {}
        if (of := recipe.importance) is not None:
            out["importance"] = {name: self._importance(name, cube, split, of) for name in of.models or recipe.models}
        if (of_curve := recipe.learning_curve) is not None:
            names = of_curve.models or recipe.models
            out["learning_curve"] = {name: self._learning_curve(name, cube, split, of_curve) for name in names}
        return out

    def _uncertainty(self, cube: xr.Dataset, split: Split) -> dict[str, Any]:
        """`prediction_intervals` and `applicability` of the results, at the test stations, where the recipe asks for them."""
        intervals, area, out = self.recipe.intervals, self.recipe.applicability, {}
        if intervals is not None:
            names = intervals.models or self.recipe.models
            out["prediction_intervals"] = {name: self._coverage(name, cube, split, intervals.level) for name in names}
        if area is not None:
            out["applicability"] = {name: self._area(name, cube, split) for name in area.models or self.recipe.models}
        return out

    def _coverage(self, name: str, cube: xr.Dataset, split: Split, level: float) -> dict[str, Any]:
        def work(progress: Callable[[int, int], None]) -> dict[str, Any]:
            model = load_model(self.folder / "models" / name)
            assert model.calibration_ is not None
            table = interval_coverage(model, cube, split, level=level)
            return {
                "level": level,
                "calibrated_on": {"stations": model.calibration_.stations, "rows": model.calibration_.rows},
                **describe_coverage(table, cube),
            }

        return self.stage(f"intervals {name}", {"level": level, **self.key(f"model {name}")}, [], work)

    def _area(self, name: str, cube: xr.Dataset, split: Split) -> dict[str, Any]:
        def work(progress: Callable[[int, int], None]) -> dict[str, Any]:
            model = load_model(self.folder / "models" / name)
            area = model.applicability_
            assert area is not None
            weights = dict(zip(area.features, map(float, area.weights), strict=True))
            return {
                "threshold": area.threshold,
                "folds": area.folds,
                "reference_rows": len(area.reference),
                "weights": weights,
                **score_applicability(model, cube, split),
            }

        return self.stage(f"applicability {name}", self.key(f"model {name}"), [], work)

    def _importance(self, name: str, cube: xr.Dataset, split: Split, spec: ImportanceSpec) -> list[dict[str, Any]]:
        seed = self.seed_of(spec)

        def work(progress: Callable[[int, int], None]) -> dict[str, Any]:
            table = permutation_importance(
                load_model(self.folder / "models" / name),
                cube,
                split,
                spec.part,
                groups=spec.groups,
                repeats=spec.repeats,
                seed=seed,
                progress=progress,
            )
            return {"rows": records_of(table, "feature")}

        inputs = {"spec": spec.model_dump(mode="json", exclude={"models"}), "seed": seed, **self.key(f"model {name}")}
        rows: list[dict[str, Any]] = self.stage(f"importance {name}", inputs, [], work)["rows"]
        return rows

    def _learning_curve(
        self, name: str, cube: xr.Dataset, split: Split, spec: LearningCurveSpec
    ) -> list[dict[str, Any]]:
        seed = self.seed_of(spec)
        recipe = self.recipe

        def work(progress: Callable[[int, int], None]) -> dict[str, Any]:
            table = learning_curve(
                lambda: self.new_model(name),
                self._rows_with_target(cube),
                split,
                self.prepare_of(name),
                recipe.features,
                self.target,
                length=self.days_seen(name),
                fractions=spec.fractions,
                seed=seed,
                progress=progress,
            )
            return {"rows": records_of(table, "fraction")}

        inputs = {
            "kind": recipe.models[name].kind,
            "params": self.params_of(name),
            "spec": spec.model_dump(mode="json", exclude={"models"}),
            "seed": seed,
            "prepare": self.prepare_of(name).model_dump(mode="json"),
            **self.key("stations", "split"),
        }
        rows: list[dict[str, Any]] = self.stage(f"learning curve {name}", inputs, [], work)["rows"]
        return rows

    def _audit_leakage(self, cube: xr.Dataset) -> dict[str, Any]:
        """`leakage_audit` of the results, where the recipe asks for it, on the station cube as it was built."""
        spec = self.recipe.leakage_audit
        if spec is None:
            return {}
        seed = self.seed_of(spec)

        def work(progress: Callable[[int, int], None]) -> dict[str, Any]:
            return audit_leakage(
                cube,
                self.recipe.cube_features,
                self.target,
                folds=spec.folds,
                seed=seed,
                gap_days=spec.gap_days,
                progress=progress,
            ).to_dict()

        inputs = {"spec": spec.model_dump(mode="json"), "seed": seed, **self.key("stations")}
        return {"leakage_audit": self.stage("leakage audit", inputs, [], work)}
