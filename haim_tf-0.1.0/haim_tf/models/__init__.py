"""Models: one level's autoencoder, and the hierarchy."""

from haim_tf.models.autoencoder import DiscreteAutoencoder
from haim_tf.models.hierarchy import HierarchicalModel
from haim_tf.models.pruning import without_rare_codes
from haim_tf.models.warm_up import WarmUp

__all__ = ["DiscreteAutoencoder", "HierarchicalModel", "WarmUp", "without_rare_codes"]
