"""JAX gives TensorFlow's answers: codes, likelihoods, drawn elements and steps of training.

`tests/golden/make.py` wrote them under TensorFlow.
"""

import importlib.util
import pathlib

import numpy as np
import pytest

import haim_tf
from haim_tf.backend import compiled
from haim_tf.sampling import noise, seed_pairs, walk

pytestmark = pytest.mark.jax

FOLDER = pathlib.Path(__file__).parents[1] / "golden"
# The share of drawn elements that rounding may change.
DIFFERENT = 1e-3


@pytest.fixture(scope="module", params=haim_tf.list_models(pretrained=True))
def case(request):
    with np.load(FOLDER / "models.npz") as saved:
        names = [name for name in saved.files if name.startswith(f"{request.param}/")]
        known = {name.split("/", 1)[1]: saved[name] for name in names}
    model = haim_tf.load(request.param)
    return model, known, np.arange(len(known["images"]), dtype="int32") if model.num_classes else None


def given_to(model, known, labels, index):
    codes = known[f"codes_{index + 1}"].astype("int32") if index < model.num_levels else None
    return model.conditioning(index, codes, labels)


def noise_of(model, index, count):
    return noise.uniforms(seed_pairs(3, count), index, model.sampler(index).noise_shape)


def test_codes_and_likelihoods(case):
    model, known, labels = case
    for level, codes in enumerate(model.encode(known["images"]), start=1):
        np.testing.assert_array_equal(codes, known[f"codes_{level}"])
    for part, bits in model.bits_per_dim(known["images"], labels, per_level=True).items():
        np.testing.assert_allclose(bits, known[f"bits/{part}"], atol=1e-5)


def test_drawn_elements_given_those_before(case):
    """Fed the grid that TensorFlow's sampler drew, and the seeds' noise, every network draws the same."""
    model, known, labels = case
    for index, network in enumerate(model.networks):
        grid = known[f"drawn_{index}"].astype("int32")
        uniforms = noise_of(model, index, len(grid))

        def draw(grid, uniforms, codes, labels, network=network):
            params = network(grid, codes=codes, labels=labels)
            return network.likelihood.sample(params, uniforms, 0.9, 0.95)

        given = given_to(model, known, labels, index)
        again = compiled(draw, network)(grid, uniforms, given.get("codes"), given.get("labels"))
        assert np.mean(np.asarray(again) != grid) <= DIFFERENT, index


def test_the_walk_draws_what_tensorflows_sampler_drew():
    """Element by element through the caches, as in sampling, but fed TensorFlow's elements."""
    model = haim_tf.load("fashion_mnist28")
    with np.load(FOLDER / "models.npz") as saved:
        known = {name.split("/", 1)[1]: saved[name] for name in saved.files if name.startswith("fashion")}
    for index in (1, 2):
        network, grid = model.networks[index], known[f"drawn_{index}"].astype("int32")
        labels = np.arange(len(grid), dtype="int32")

        def draw(grid, uniforms, codes, labels, network=network):
            def decide(params, row, column, count):
                x = network.likelihood.sample(params, uniforms[:, row, column], 0.9, 0.95)
                return grid[:, row, column], count + (x != grid[:, row, column]).sum()

            return walk(network, len(grid), grid.shape[1:3], decide, 0, codes=codes, labels=labels)

        given = given_to(model, known, labels, index)
        arguments = (grid, noise_of(model, index, len(grid)), given.get("codes"), given.get("labels"))
        walked, differing = compiled(draw, network)(*arguments)
        np.testing.assert_array_equal(walked, grid)
        assert differing <= DIFFERENT * grid.size, index


@pytest.mark.usefixtures("compiles_quickly")
def test_twenty_steps_of_training():
    """Every part's loss and gradient norm, each clipped by its own."""
    spec = importlib.util.spec_from_file_location("make", FOLDER / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    rows = make.steps_of_training()
    with np.load(FOLDER / "training.npz") as saved:
        assert {name for name in saved.files if name.startswith("gradient_norm")}
        for name in saved.files:
            found = [row[name] for row in rows]
            np.testing.assert_allclose(found, saved[name], rtol=1e-4, err_msg=name)
