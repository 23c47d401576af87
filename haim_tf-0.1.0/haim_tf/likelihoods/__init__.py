"""Likelihood heads: what a network's outputs say about integers, as probabilities and as samples.

`Categorical` is for codes (and for pixels with few values), `DiscretizedLogisticMixture` for 8-bit pixels;
both are a `Likelihood`, which says what a head of one's own must do. A head has no variables. Shapes are
generic over the leading dimensions `...`: (B, H, W) where a whole grid is seen at once, in training and for
likelihoods, (B,) where the sampler handles one position at a time. Everything is computed in float32,
whatever the dtype of the network.
"""

from haim_tf.likelihoods.base import PIXEL_LIKELIHOODS, Likelihood
from haim_tf.likelihoods.categorical import Categorical
from haim_tf.likelihoods.logistic_mixture import DiscretizedLogisticMixture

__all__ = ["PIXEL_LIKELIHOODS", "Categorical", "DiscretizedLogisticMixture", "Likelihood"]
