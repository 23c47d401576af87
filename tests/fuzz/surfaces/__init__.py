"""What parses something: a file each.

A surface is a class made with a scratch folder; `attempt(rng)` tries one damaged or odd input, drawn by `rng`
alone, and raises what haim_tf raises. `LIMIT` is the seconds that an attempt may take.
"""

import importlib

# By name: the module, and how many inputs a whole run tries.
SURFACES = {
    "pictures": ("pictures", 4000),
    "arrays": ("arrays", 1500),
    "data folders": ("folders", 300),
    "recipes": ("recipes", 2000),
    "run folders": ("runs", 500),
    "presets": ("presets", 250),
    "compressed files": ("compressed", 1500),
    "request bodies": ("bodies", 1500),
    "requests to a server": ("server", 500),
}


def find(name):
    """The class of a surface."""
    module = SURFACES[name][0]
    return getattr(importlib.import_module(f"surfaces.{module}"), module.capitalize())
