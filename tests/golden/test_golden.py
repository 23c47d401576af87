"""The same answers as ever: of every zoo model, and of files that version 0.1.0 wrote (see make.py)."""

import inspect
import os
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import PIL.Image
import pytest

import haim_tf
from haim_tf import networks, training
from haim_tf.sampling import draw_noise

FOLDER = pathlib.Path(__file__).parent
EARLIER = FOLDER / "0.1.0"
# The share of drawn elements that rounding may change.
DIFFERENT = 1e-3


@pytest.fixture(scope="module", params=haim_tf.list_models(pretrained=True))
def case(request):
    with np.load(FOLDER / "models.npz") as saved:
        known = {
            name.split("/", 1)[1]: saved[name] for name in saved.files if name.startswith(f"{request.param}/")
        }
    assert known, f"run tests/golden/make.py models: there is nothing of {request.param}"
    model = haim_tf.load(request.param)
    return model, known, np.arange(len(known["images"])) if model.num_classes else None


def test_codes_and_likelihoods(case):
    model, known, labels = case
    for level, codes in enumerate(model.encode(known["images"]), start=1):
        np.testing.assert_array_equal(codes, known[f"codes_{level}"])
    for part, bits in model.bits_per_dim(known["images"], labels, per_level=True).items():
        np.testing.assert_allclose(bits, known[f"bits/{part}"], atol=1e-5)


def test_drawn_elements_given_those_before(case):
    """Fed the grid that was drawn and its noise, every network draws the same again."""
    model, known, labels = case
    codes = [known[f"codes_{level + 1}"].astype("int32") for level in range(model.num_levels)]
    for index, network in enumerate(model.networks):
        grid = known[f"drawn_{index}"].astype("int32")
        seeds = np.stack([np.full(len(grid), 3), np.arange(len(grid))], axis=1).astype("int32")
        shape = (*model.grid_shapes[index], network.likelihood.noise_size)
        noise = np.asarray(draw_noise(seeds, index, shape))
        given = model.conditioning(index, codes[index] if index < model.num_levels else None, labels)
        again = network.likelihood.sample(network(grid, **given), noise, 0.9, 0.95)
        assert np.mean(np.asarray(again) != grid) <= DIFFERENT, index


@pytest.fixture(scope="module")
def earlier():
    with np.load(EARLIER / "expected.npz") as saved:
        return {name: saved[name] for name in saved.files}


@pytest.mark.parametrize("kind", ["preset", "model.keras"])
def test_models_of_0_1_0_load(kind, earlier, tmp_path):
    if kind == "preset":
        shutil.copytree(EARLIER / "preset", tmp_path / "debug")
        model = haim_tf.load(tmp_path / "debug")
    else:
        model = keras.saving.load_model(EARLIER / kind)
    assert model.class_names == (
        [f"class {i}" for i in range(model.num_classes)] if kind == "preset" else None
    )
    np.testing.assert_allclose(model.log_prob(earlier["images"], 0), earlier["log_prob"], rtol=1e-6)
    plain = {"temperature": [1.0] * 3, "top_p": [1.0] * 3, "guidance": 1.0}
    assert model.sampling_defaults == plain


def test_a_picture_compressed_by_0_1_0_is_decoded(earlier, tmp_path):
    """In a process of its own: to the last bit, floats are those of programs optimized as ever.

    A processor with AVX-512 compressed it: one without may refuse it, by the message for that.
    """
    command = [
        sys.executable,
        "-m",
        "haim_tf",
        "decompress",
        EARLIER / "picture.haim",
        f"--output={tmp_path}",
    ]
    command.append(f"--model={EARLIER / 'preset'}")
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    processor = pathlib.Path("/proc/cpuinfo")
    if done.returncode and not (processor.exists() and "avx512f" in processor.read_text()):
        assert "cannot be decoded here: what comes out is not what was compressed" in done.stderr
        assert not list(tmp_path.iterdir())
        return
    assert done.returncode == 0, done.stderr
    with PIL.Image.open(tmp_path / "picture.png") as image:
        np.testing.assert_array_equal(image, earlier["images"][0])


@pytest.mark.parametrize(
    "function, names",
    [
        (training.code_cache.cached_codes, "model images path flip verbose"),
        (networks.PixelCNN, "likelihood width blocks kernel_size attention heads dropout"),
        (networks.PixelCNN.call, "self x codes labels training"),
        (networks.PixelCNN.log_prob, "self x codes labels training"),
        (haim_tf.load, "name_or_folder weights num_classes"),
        (haim_tf.HierarchicalModel.sample, "self num labels seed temperature top_p batch_size verbose"),
        (haim_tf.HierarchicalModel.decode, "self codes level seed temperature top_p batch_size verbose"),
        (haim_tf.HierarchicalModel.reconstruct, "self images level decoder seed"),
        (
            haim_tf.models.DiscreteAutoencoder,
            "downsampling codebook_size code_dim width blocks channels "
            "lower_codebook_size commitment auxiliary",
        ),
    ],
)
def test_arguments_by_position_are_those_of_0_1_0(function, names):
    assert " ".join(inspect.signature(function).parameters).startswith(names)
