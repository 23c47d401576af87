"""What parses something: a file each.

A surface is a class made with a scratch folder; `attempt(rng)` tries one damaged or odd input, drawn by `rng`
alone, and raises what haim_tf raises. `LIMIT` is the seconds that an attempt may take.
"""

from surfaces.arrays import Arrays
from surfaces.bodies import Bodies
from surfaces.compressed import Compressed
from surfaces.folders import Folders
from surfaces.pictures import Pictures
from surfaces.presets import Presets
from surfaces.recipes import Recipes
from surfaces.runs import Runs
from surfaces.server import Server

# By name, with how many inputs a whole run tries.
SURFACES = {
    "pictures": (Pictures, 4000),
    "arrays": (Arrays, 1500),
    "data folders": (Folders, 300),
    "recipes": (Recipes, 2000),
    "run folders": (Runs, 500),
    "presets": (Presets, 250),
    "compressed files": (Compressed, 1500),
    "request bodies": (Bodies, 1500),
    "requests to a server": (Server, 500),
}
