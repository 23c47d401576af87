"""Vector quantization with a codebook that follows its queries by moving averages."""

from collections.abc import Mapping, MutableMapping
from typing import Any

import keras
from keras import ops

from haim_tf.backend import exact_float32
from haim_tf.checks import require_int, require_number, require_positive_integers
from haim_tf.layers import collectives
from haim_tf.layers.types import Shape, Tensor

# A code counts as active when its share of the moving average counts is at least this part of uniform (1/K).
ACTIVE_SHARE = 0.01

# Standard deviations, of noise on repeated picks: enough to tell two codes made of one query apart.
REPEAT_JITTER = 0.01


@keras.saving.register_keras_serializable(package="haim_tf")
class VectorQuantizer(keras.layers.Layer):
    """Replaces each query by the nearest vector of a codebook: continuous queries become integer codes.

    The codebook is no trainable weight. At the first training batch it is set to randomly picked queries;
    from then on every training call moves it to the moving average of the queries assigned to each code. A
    code whose average count falls below `revive_below` times the mean count (dead) is replaced by a randomly
    picked query of the batch, and its moving averages start again at the mean count. With `training=False`,
    or while `trainable` is False, nothing moves, and the same queries always get the same codes.

    All variables, and the distances, are float32 whatever the dtype policy: in bfloat16 a few percent of
    the codes would change. Under `tf.distribute` the codebook follows the queries of all replicas: counts and
    sums are summed over them, and new vectors picked among the queries of all, just as if one had them all.

    Args:
        codebook_size: K, the number of codes.
        code_dim: D, the width of a query and of a code vector.
        decay: decay of the moving averages, in [0, 1): they reach back about `1 / (1 - decay)` batches.
        epsilon: Laplace smoothing of the counts, above 0.
        revive_below: the share of uniform usage below which a code is dead, in [0, 1); 0: never revive.
        seed: int for the picks and the initial codebook, or None.

    Variables: `codebook` (K, D), `counts` (K,) and `sums` (K, D), the moving averages of a code's queries in
    a batch, and `initialized` (), 1 once the codebook comes from data.

    Call arguments:
        queries: (B, h, w, D), any float dtype.
        training: whether the codebook follows these queries.

    Returns a dict:
        code_vectors: (B, h, w, D) float32; its gradient goes to the queries unchanged (straight-through).
        codes: (B, h, w) int32 in 0..K-1.
        commitment: () float32, mean squared difference between the queries and the (constant) code vectors.

    Raises:
        ValueError: an argument out of its range, or queries that are not (B, h, w, D).

    Example:
        >>> quantizer = VectorQuantizer(codebook_size=16, code_dim=4, seed=0)
        >>> queries = np.random.default_rng(0).normal(size=(2, 7, 7, 4)).astype("float32")
        >>> outputs = quantizer(queries, training=True)
        >>> tuple(outputs["codes"].shape)
        (2, 7, 7)

    Reference: van den Oord et al. 2017, Neural Discrete Representation Learning, arXiv 1711.00937, equation 3
    and appendix A.1.
    NOTE: unlike there, the codebook starts from data, and dead codes are revived.
    """

    def __init__(
        self,
        codebook_size: int,
        code_dim: int,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        revive_below: float = 0.1,
        seed: int | None = None,
        **kwargs: Any,
    ):
        # Without autocast the queries keep their own precision under a mixed policy.
        super().__init__(autocast=False, **kwargs)
        self.codebook_size, self.code_dim = require_positive_integers(
            codebook_size=codebook_size, code_dim=code_dim
        )
        self.decay = require_number("decay", decay, low=0, below=1)
        self.epsilon = require_number("epsilon", epsilon, above=0)
        self.revive_below = require_number("revive_below", revive_below, low=0, below=1)
        self.seed = require_int("seed", seed, optional=True)
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: self.code_dim})

    def build(self, input_shape: Shape) -> None:
        K, D = self.codebook_size, self.code_dim
        # Near zero, so that even an untrained quantizer spreads its codes over the queries' directions.
        near_zero = keras.initializers.RandomUniform(-1 / K, 1 / K, seed=self.seed)
        self.codebook = self._add_state("codebook", (K, D), near_zero)
        self.counts = self._add_state("counts", (K,), "zeros")
        self.sums = self._add_state("sums", (K, D), "zeros")
        self.initialized = self._add_state("initialized", (), "zeros")

    def _add_state(self, name, shape, initializer):
        # Every replica assigns the same: all of it follows from sums over the replicas.
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            dtype="float32",
            trainable=False,
            autocast=False,
            aggregation="none",
        )

    def call(self, queries: Tensor, training: bool = False) -> dict[str, Tensor]:
        queries = ops.cast(queries, "float32")
        flat = ops.reshape(queries, (-1, self.code_dim))
        learn = training and self.trainable
        flat_codes = self._nearest(flat)
        if learn:
            candidates = self._pick(flat, flat_codes)
            fresh = ops.convert_to_tensor(self.initialized) < 0.5
            self._start_from(fresh, candidates, ops.shape(flat)[0] * collectives.place()[1])
            # Distances to all codes are most of the work: a second time only where the codebook is another.
            flat_codes = ops.cond(fresh, lambda: self._nearest(flat), lambda: flat_codes)
        codes = ops.reshape(flat_codes, ops.shape(queries)[:-1])
        # Looked up before the codebook moves: the vectors are those that the codes were chosen by.
        vectors = ops.stop_gradient(self.lookup(codes))
        if learn:
            self._follow(ops.stop_gradient(flat), flat_codes)
            if self.revive_below:
                self._revive(candidates)
        return {
            # The difference is exactly 0: the value is exactly the code vector, the gradient the query's.
            "code_vectors": vectors + (queries - ops.stop_gradient(queries)),
            "codes": codes,
            "commitment": ops.mean(ops.square(queries - vectors)),
        }

    def lookup(self, codes: Tensor) -> Tensor:
        """Returns the float32 code vectors (B, h, w, D) of int codes (B, h, w) in 0..K-1.

        Example:
            >>> quantizer = VectorQuantizer(codebook_size=16, code_dim=4)
            >>> quantizer.build((None, 7, 7, 4))
            >>> tuple(quantizer.lookup(np.zeros((2, 7, 7), "int32")).shape)
            (2, 7, 7, 4)
        """
        return ops.take(ops.convert_to_tensor(self.codebook), codes, axis=0)

    def perplexity(self) -> Tensor:
        """Returns exp(entropy) of the moving average code usage: 1 (one code, or untrained) to K (uniform).

        NOTE: a code that was just revived counts as used at the mean rate; measure on data for a report.

        Example:
            >>> quantizer = VectorQuantizer(codebook_size=16, code_dim=4)
            >>> quantizer.build((None, 7, 7, 4))
            >>> float(quantizer.perplexity())  # Untrained.
            1.0
        """
        shares = self._shares()
        return ops.exp(-ops.sum(shares * ops.log(ops.maximum(shares, 1e-12))))

    def active_fraction(self) -> Tensor:
        """Returns the share of codes, 0..1, whose moving average usage is at least 1 % of uniform (1/K).

        Example:
            >>> quantizer = VectorQuantizer(codebook_size=16, code_dim=4)
            >>> quantizer.build((None, 7, 7, 4))
            >>> float(quantizer.active_fraction())  # Untrained.
            0.0
        """
        return ops.mean(ops.cast(self._shares() >= ACTIVE_SHARE / self.codebook_size, "float32"))

    def _shares(self):
        counts = ops.convert_to_tensor(self.counts)
        return counts / ops.maximum(ops.sum(counts), 1e-12)

    def _nearest(self, flat):
        codebook = ops.convert_to_tensor(self.codebook)
        # Squared distances less the query's own square, which is the same for every code.
        with exact_float32():
            products = ops.matmul(flat, ops.transpose(codebook))
        distances = ops.sum(ops.square(codebook), axis=-1) - 2 * products
        return ops.cast(ops.argmin(distances, axis=-1), "int32")

    def _pick(self, flat, flat_codes):
        """Picks K of the queries (N, D) of all replicas, without repeats where N >= K; repeats get jitter.

        The chance of a query grows with its squared distance to the codebook (as in k-means++), so that new
        codes go where they are missed: picked uniformly, most would repeat what the data is full of.
        """
        flat = ops.stop_gradient(flat)
        errors = ops.sum(ops.square(flat - self.lookup(flat_codes)), axis=-1)
        replica, replica_count = collectives.place()
        shape = (replica_count, ops.shape(flat)[0])
        uniforms = keras.random.uniform(shape, 1e-7, 1.0, seed=self.seed_generator)[replica]
        # The largest of log-weights plus Gumbel noise are a weighted draw without replacement.
        keys = ops.log(-ops.log(uniforms)) - ops.log(errors + 1e-12)
        # The K first of all are among the K first of each replica.
        first = ops.argsort(keys)[: self.codebook_size]
        flat, keys = (collectives.gathered(ops.take(values, first, axis=0)) for values in (flat, keys))
        order, count = ops.argsort(keys), ops.shape(keys)[0]
        positions = ops.arange(self.codebook_size, dtype="int32")
        picked = ops.take(flat, ops.take(order, positions % count), axis=0)
        noise = keras.random.normal(ops.shape(picked), seed=self.seed_generator)
        repeated = ops.cast(positions >= count, "float32")[:, None]
        return picked + repeated * REPEAT_JITTER * ops.std(flat, axis=0) * noise

    def _start_from(self, fresh, candidates, count):
        uniform = ops.cast(count, "float32") / self.codebook_size
        self._replace(ops.broadcast_to(fresh, (self.codebook_size,)), candidates, uniform)
        self.initialized.assign(ops.ones(()))

    def _follow(self, flat, flat_codes):
        """Moves counts, sums and codebook towards this batch (van den Oord et al. 2017, equations 6 to 8)."""
        K = self.codebook_size
        for average, values in ((self.counts, ops.ones_like(flat[:, 0])), (self.sums, flat)):
            batch = collectives.total(ops.segment_sum(values, flat_codes, num_segments=K))
            average.assign(self.decay * ops.convert_to_tensor(average) + (1 - self.decay) * batch)
        counts = ops.convert_to_tensor(self.counts)
        total = ops.sum(counts)
        smoothed = (counts + self.epsilon) / (total + K * self.epsilon) * total
        self.codebook.assign(ops.convert_to_tensor(self.sums) / smoothed[:, None])

    def _revive(self, candidates):
        counts = ops.convert_to_tensor(self.counts)
        mean = ops.mean(counts)
        self._replace(counts < self.revive_below * mean, candidates, mean)

    def _replace(self, chosen, candidates, count):
        """Gives the chosen codes (K,) new vectors, and moving averages that agree with them."""
        rows = chosen[:, None]
        self.codebook.assign(ops.where(rows, candidates, ops.convert_to_tensor(self.codebook)))
        self.counts.assign(ops.where(chosen, count, ops.convert_to_tensor(self.counts)))
        restarted = count * ops.convert_to_tensor(self.codebook)
        self.sums.assign(ops.where(rows, restarted, ops.convert_to_tensor(self.sums)))

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        super().save_own_variables(store)
        # Keras saves no random state; with it, resumed training picks what unbroken training would have.
        store["random_state"] = ops.convert_to_numpy(self.seed_generator.state)

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        super().load_own_variables({name: store[name] for name in store.keys() if name != "random_state"})
        self.seed_generator.state.assign(store["random_state"])

    def get_config(self) -> dict:
        return super().get_config() | {
            "codebook_size": self.codebook_size,
            "code_dim": self.code_dim,
            "decay": self.decay,
            "epsilon": self.epsilon,
            "revive_below": self.revive_below,
            "seed": self.seed,
        }
