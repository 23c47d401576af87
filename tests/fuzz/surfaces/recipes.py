"""Recipes: JSON files, and what they say of model and stages."""

import json
from importlib import resources

from damage import damaged_json, damaged_value, pick

from haim_tf.training import read_recipe

NAMES = ("fashion_mnist28", "imagenet32", "imagenet64")


class Recipes:
    """A recipe of the zoo, damaged as text or as a value."""

    LIMIT = 60

    def __init__(self, folder):
        self.path = folder / "recipe.json"
        zoo = resources.files("haim_tf.zoo")
        self.recipes = [json.loads((zoo / name / "recipe.json").read_text()) for name in NAMES]

    def attempt(self, rng):
        recipe = pick(rng, self.recipes)
        if rng.random() < 0.5:
            source = damaged_value(rng, recipe)
        else:
            self.path.write_bytes(damaged_json(rng, recipe))
            source = self.path
        variant = pick(rng, [None, None, "flat", "other"])
        read = read_recipe(source, variant, smoke=rng.random() < 0.2)
        # What was accepted can be written beside the run.
        json.dumps(read, allow_nan=False).encode()
