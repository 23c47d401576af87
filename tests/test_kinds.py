"""Kinds of parts from outside the package: they train, sample, export and load as its own do."""

import keras
import numpy as np
import pytest
from keras import ops

import haim_tf
from haim_tf.compression import compress, decompress
from haim_tf.likelihoods import PIXEL_LIKELIHOODS, Likelihood
from haim_tf.networks import AUXILIARY_DECODERS, NETWORKS, AutoregressiveNetwork, AuxiliaryDecoder
from haim_tf.registry import Registry

IMAGES = np.random.default_rng(0).integers(0, 256, (16, 4, 4, 1)).astype("uint8")
LABELS = np.arange(16, dtype="int32") % 2


@AUXILIARY_DECODERS.register("toy_linear")
@keras.saving.register_keras_serializable(package="toys")
class LinearDecoder(AuxiliaryDecoder):
    """A code's cell is a linear function of its vector; absolute errors."""

    def __init__(self, upsampling, width, blocks, channels=None, codebook_size=None, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale
        self.paint = keras.layers.Conv2DTranspose(channels or codebook_size, upsampling, upsampling)

    def build(self, input_shape):
        self.paint.build(input_shape)

    def call(self, code_vectors):
        return self.paint(code_vectors)

    def loss(self, outputs, target):
        return self.scale * ops.mean(ops.abs(outputs - target))

    def reconstruct(self, outputs):
        return ops.clip(outputs, -1.0, 1.0)


@PIXEL_LIKELIHOODS.register("toy_halves")
@keras.saving.register_keras_serializable(package="toys")
class Halves(Likelihood):
    """Dark or bright by a coin, then evenly within that half: 256 grey values."""

    num_values, params_size, output_size = 256, 1, 1

    def __init__(self, channels=1, share=0.5):
        self.channels, self.share = channels, share

    def parameters(self, outputs, x):
        return ops.cast(outputs, "float32")

    def parameters_at(self, cache, outputs, column):
        return ops.cast(outputs, "float32")

    def log_prob(self, params, x):
        bright = ops.cast(x >= 128, "float32") * 2 - 1
        return ops.log_sigmoid(bright * params[..., 0]) - np.log(128.0)

    def log_probs(self, params, earlier=None):
        sign = np.where(np.arange(256) >= 128, 1.0, -1.0).astype("float32")
        return ops.log_sigmoid(sign * params) - np.log(128.0)

    def sample(self, params, noise, temperature=1.0, top_p=1.0):
        uniform, dark = noise[..., 0], ops.sigmoid(-params[..., 0])
        within = ops.where(uniform < dark, uniform / dark, (uniform - dark) / (1 - dark))
        value = ops.where(uniform < dark, 0.0, 128.0) + ops.floor(ops.clip(within, 0.0, 0.9999) * 128.0)
        return ops.cast(value, "int32")

    def get_config(self):
        return {"channels": self.channels, "share": self.share}


@NETWORKS.register("toy_bigram")
@keras.saving.register_keras_serializable(package="toys")
class Bigram(AutoregressiveNetwork):
    """Each element depends on the one just before it, and on the label; codes are averaged in."""

    def __init__(self, likelihood, strength=1.0, **kwargs):
        super().__init__(likelihood, **kwargs)
        self.strength = strength

    def build(self, *shapes):
        sizes = {"before": self.likelihood.num_values + 1}
        sizes["given"] = self.codebook_size or self.num_classes + bool(self.label_dropout)
        self.tables = {
            name: self.add_weight(name=name, shape=(size, self.likelihood.params_size), initializer="normal")
            for name, size in sizes.items()
        }

    def _given(self, codes, labels, training=False):
        if codes is None:
            index = self.drop_labels(labels) if training else labels
            return ops.take(self.tables["given"], index, axis=0)[:, None, None]
        codes = ops.repeat(ops.repeat(codes, self.upsampling, axis=1), self.upsampling, axis=2)
        return ops.take(self.tables["given"], codes, axis=0)

    def call(self, x, codes=None, labels=None, corner=None, training=False):
        _, height, width = x.shape
        flat = ops.reshape(x, (-1, height * width))
        before = ops.pad(flat[:, :-1] + 1, [[0, 0], [1, 0]])
        hidden = ops.reshape(ops.take(self.tables["before"], before, axis=0), (-1, height, width, self.size))
        return self.likelihood.parameters(self.strength * hidden + self._given(codes, labels, training), x)

    @property
    def size(self):
        return self.likelihood.params_size

    def init_cache(self, batch_size, height, width, codes=None, labels=None):
        given = self._given(codes, labels)
        given = ops.broadcast_to(given, (batch_size, height, width, self.size))
        return {"given": given, "before": ops.zeros((batch_size,), "int32")}

    def start_row(self, cache, row):
        return cache

    def read(self, cache, row, column):
        batch_size = cache["before"].shape[0]
        given = ops.slice(cache["given"], (0, row, column, 0), (batch_size, 1, 1, self.size))[:, 0, 0]
        hidden = self.strength * ops.take(self.tables["before"], cache["before"], axis=0) + given
        return self.likelihood.parameters_at({}, hidden, column), cache

    def write(self, cache, x, column):
        return {**cache, "before": x + 1}

    def get_config(self):
        return {**super().get_config(), "strength": self.strength}


LEVEL = {"downsampling": 2, "codebook_size": 4, "code_dim": 2, "width": 4, "blocks": 1}
DECODER = {"width": 4, "blocks": 1, "condition_width": 4, "condition_blocks": 1}
OWN = {
    "image_shape": [4, 4, 1],
    "levels": [{**LEVEL, "decoder": DECODER}],
    "prior": {"width": 4, "blocks": 1},
    "num_classes": 2,
    "mixtures": 2,
}
CASES = {
    "auxiliary decoder and prior": {
        "levels": [{**LEVEL, "decoder": DECODER, "auxiliary": {"kind": "toy_linear", "scale": 2.0}}],
        "prior": {"kind": "toy_bigram", "strength": 0.5, "label_dropout": 0.2},
    },
    "likelihood head and main decoder": {
        "pixel_likelihood": {"kind": "toy_halves", "share": 0.25},
        "levels": [{**LEVEL, "decoder": {"kind": "toy_bigram"}}],
    },
}


@pytest.mark.parametrize("case", CASES)
def test_a_kind_from_outside_does_all_that_the_package_s_own_do(case, tmp_path):
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    model = haim_tf.HierarchicalModel(**{**OWN, **CASES[case]})
    model.compile(keras.optimizers.Adam(0.05), run_eagerly=True)
    history = model.fit(IMAGES, LABELS, epochs=3, batch_size=16, verbose=0).history["loss"]
    assert history[-1] < history[0]

    labels = [0, 1, 1]
    samples = model.sample(3, labels, seed=5)
    log_prob = model.log_prob(samples, labels)
    # What the sampler says of its own top codes is what the network says of them.
    seeds = np.array([[5, 0], [5, 1], [5, 2]], "int32")
    top, nats = model.sampler(1)(seeds, 1.0, 1.0, labels=np.array(labels, "int32"), log_prob=True)
    expected = np.sum(np.asarray(model.prior.log_prob(top, labels=np.array(labels, "int32"))), axis=(1, 2))
    np.testing.assert_allclose(nats, expected, rtol=1e-4)

    model.save_to_preset(tmp_path / "preset")
    loaded = haim_tf.load(tmp_path / "preset")
    model.save(tmp_path / "m.keras")
    restored = keras.saving.load_model(tmp_path / "m.keras")
    for other in (loaded, restored):
        np.testing.assert_allclose(other.log_prob(samples, labels), log_prob, rtol=1e-5)
    known = IMAGES[:2].copy()
    completed = model.complete(known, rows=2, labels=0, candidates=2)
    np.testing.assert_array_equal(completed[:, :2], known[:, :2])
    files = compress(model, [IMAGES[0]], labels=[1])
    np.testing.assert_array_equal(decompress(model, files)[0], IMAGES[0])

    # What was loaded samples alike, as its export shows.
    version = haim_tf.saved_model.export(
        restored, tmp_path / "export", batch_sizes=[3], warmup=False, xla=False
    )
    sample = tf.saved_model.load(str(version)).signatures["sample"]
    inputs = {"seed": seeds, "label": np.array(labels, "int32")}
    inputs |= {name: np.full(3, -1, "float32") for name in ("temperature", "top_p")}
    if model.takes_guidance:
        inputs["guidance"] = np.full(3, -1, "float32")
    found = sample(**{name: tf.constant(x) for name, x in inputs.items()})
    np.testing.assert_array_equal(found["image"], samples)


def test_a_registry_names_what_is_wrong():
    kinds = Registry("thing")
    kinds.register("one")(lambda size, fixed: (size, fixed))
    assert kinds.make("it", {"size": 2}, default="one", fixed=3) == (2, 3)
    for configuration, message in (
        ({"kind": "two"}, r"it: the kind of thing must be one of \['one'\], got 'two'"),
        ({"kind": "one", "sise": 2}, r"it takes the arguments \['size'\], got unknown ones: \['sise'\]"),
        ({"kind": "one", "fixed": 2}, "unknown ones"),
        ({"kind": "one"}, "it has a wrong argument in"),
    ):
        with pytest.raises(ValueError, match=message):
            kinds.make("it", configuration, fixed=3)
    with pytest.raises(ValueError, match="'one' is taken"):
        kinds.register("one")(int)
