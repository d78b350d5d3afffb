"""A recipe on disk."""

from __future__ import annotations

import json

import pytest

from gms_rt.errors import ArtifactError
from gms_rt.precision.recipe import Recipe, read_recipe, write_recipe


def test_recipe_survives_the_disk_and_refuses_the_future(tmp_path):
    recipe = Recipe("int8", "ab", int8=["x"], kept={"y": "magnitude 70000"}, ranges={"t": 1.5}, calibrator="mse")
    write_recipe(tmp_path, recipe)
    assert read_recipe(tmp_path) == recipe
    data = json.loads((tmp_path / "precision.json").read_text())
    for change in ({"version": 3}, {"format": "other"}, {"surprise": 1}, {"precision": "fp8"}):
        (tmp_path / "precision.json").write_text(json.dumps(data | change))
        with pytest.raises(ArtifactError):
            read_recipe(tmp_path)
