"""Likelihood heads: what a network's outputs say about integers, as probabilities and as samples.

`Categorical` is for codes (and for pixels with few values), `DiscretizedLogisticMixture` for 8-bit pixels.
A head has no variables. Shapes are generic over the leading dimensions `...`: (B, H, W) where a whole grid
is seen at once (training, likelihood), (B,) where the sampler handles one position at a time. Everything is
computed in float32, whatever the dtype of the network. Both heads offer the same members:

- `params_size`: network outputs per position; `noise_size`: uniforms needed to sample one position.
- `initial_bias()`: the bias that the network's last layer (kernel zero) starts with.
- `parameters(outputs, x)`, `parameters_from_neighbors(outputs, west, north, north_west)`: network outputs
  to the parameters that the next two take, on a whole grid or at single positions.
- `log_prob(params, x)`: nats per position.
- `log_probs(params, earlier)`: nats of every value of the next channel, given the position's earlier ones.
- `sample(params, noise, temperature, top_p)`: integers per position, a deterministic function of `noise`.
"""

from haim_tf.likelihoods.categorical import Categorical
from haim_tf.likelihoods.logistic_mixture import DiscretizedLogisticMixture

__all__ = ["Categorical", "DiscretizedLogisticMixture"]
