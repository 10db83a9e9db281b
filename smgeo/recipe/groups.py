"""Spec of the stations that are held out together."""

from __future__ import annotations

from pydantic import Field, model_validator

from smgeo.recipe.spec import Spec


class GroupsSpec(Spec):
    """Stations that splits, folds, searches and intervals never part, see `smgeo.group_stations`.

    `by`: `place` (the default), `station`, `clusters` of `km`, or a coordinate of the stations: `network`, or `group`, which tables fill
    from a column and which is the default where they do. In a recipe, `groups: network` is short for `groups: {by: network}`.
    """

    by: str | None = Field(default=None, min_length=1)
    same_place_m: float = Field(default=30.0, ge=0, le=1_000_000)
    km: float | None = Field(default=None, gt=0, le=20_000)
    buffer_km: float = Field(default=0.0, ge=0, le=20_000)

    @model_validator(mode="after")
    def _km_of_clusters(self) -> GroupsSpec:
        if (self.km is not None) != (self.by == "clusters"):
            raise ValueError("km is the size of clusters: give it with by: clusters, and only there")
        return self
