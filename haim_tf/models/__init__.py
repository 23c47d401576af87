"""Models: one level's autoencoder, and the hierarchy."""

from haim_tf.models.autoencoder import DiscreteAutoencoder
from haim_tf.models.hierarchy import HierarchicalModel

__all__ = ["DiscreteAutoencoder", "HierarchicalModel"]
