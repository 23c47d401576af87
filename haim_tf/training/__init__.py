"""Training by a recipe: staged, logged, checkpointed, and resumable after being killed at any moment."""

from haim_tf.training.fine_tuning import fine_tune
from haim_tf.training.recipe import read_recipe
from haim_tf.training.run_folder import RunFolder
from haim_tf.training.whole_run import train

__all__ = ["RunFolder", "fine_tune", "read_recipe", "train"]
