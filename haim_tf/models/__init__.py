"""Models: one level's autoencoder, and the hierarchy."""

from haim_tf.models.autoencoder import DiscreteAutoencoder
from haim_tf.models.hierarchy import HierarchicalModel
from haim_tf.models.pruning import without_rare_codes

__all__ = ["DiscreteAutoencoder", "HierarchicalModel", "without_rare_codes"]
