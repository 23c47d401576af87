"""Dropping rare codes: what is left is the model's own, renumbered."""

import keras
import numpy as np
import pytest

import haim_tf
from haim_tf.models import without_rare_codes


@pytest.fixture(scope="module")
def model():
    return haim_tf.load("debug")


@pytest.fixture(scope="module")
def images(model):
    return model.sample(24, seed=3)


def test_drops_the_rare_codes_of_every_level_and_keeps_what_the_others_mean(model, images):
    pruned = without_rare_codes(model, images, below=0.5)
    assert all(2 <= new < old for new, old in zip(pruned.codebook_sizes, model.codebook_sizes, strict=True))
    before, after = (m.encode(images)[0] for m in (model, pruned))
    old_book, new_book = (m.autoencoders[0].quantizer.codebook.numpy() for m in (model, pruned))
    kept = [int(np.flatnonzero((old_book == row).all(axis=1))[0]) for row in new_book]
    counts = np.bincount(before.ravel(), minlength=len(old_book))
    assert set(kept) == set(np.flatnonzero(counts >= 0.5 * before.size / len(old_book)))
    # Codes that stay are those that the images had, renumbered; the others went to a code that stays.
    stays = np.isin(before, kept)
    np.testing.assert_array_equal(np.array(kept)[after][stays], before[stays])
    assert 0 < stays.mean() < 1
    for image_model in (model, pruned):
        assert np.isfinite(image_model.log_prob(images, labels=0)).all()


def test_logits_are_those_of_the_codes_that_stay(model, images):
    pruned = without_rare_codes(model, images, below=0.5)
    size = model.codebook_sizes[-1]
    codes = pruned.encode(images)[-1][:2]
    book, new_book = (m.autoencoders[-1].quantizer.codebook.numpy() for m in (model, pruned))
    kept = np.array([np.flatnonzero((book == row).all(axis=1))[0] for row in new_book])
    labels = np.zeros(2, "int32")
    expected = model.prior(kept[codes].astype("int32"), labels=labels).numpy()
    assert expected.shape[-1] == size
    found = pruned.prior(codes, labels=labels).numpy()
    np.testing.assert_allclose(found, expected[..., kept], rtol=1e-5, atol=1e-5)


def test_nothing_rare_nothing_dropped(model, images):
    copy = without_rare_codes(model, images, below=0.0)
    assert copy is not model and copy.dtype_policy.name == "float32"
    np.testing.assert_array_equal(copy.log_prob(images, labels=0), model.log_prob(images, labels=0))


def test_two_codes_always_stay():
    network = {"width": 4, "blocks": 1}
    level = {"downsampling": 2, "codebook_size": 4, "code_dim": 2, "width": 4, "blocks": 1}
    model = haim_tf.HierarchicalModel((4, 4, 1), [{**level, "decoder": network}], network, mixtures=2)
    model.autoencoders[0].quantizer.codebook.assign([[0, 0], [1e3, 0], [0, 1e3], [1e3, 1e3]])
    images = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 1)).astype("uint8")
    assert set(model.encode(images)[0].ravel()) == {0}
    assert without_rare_codes(model, images, below=0.9).codebook_sizes == [2]


@pytest.mark.parametrize("below", [-0.1, 1.0, float("nan")])
def test_bad_share(model, images, below):
    with pytest.raises(ValueError, match="below must be in"):
        without_rare_codes(model, images, below)


def test_a_pruned_model_is_saved_and_loaded(model, images, tmp_path):
    pruned = without_rare_codes(model, images, below=0.5)
    pruned.save(tmp_path / "pruned.keras")
    loaded = keras.saving.load_model(tmp_path / "pruned.keras")
    np.testing.assert_array_equal(
        loaded.log_prob(images[:2], labels=1), pruned.log_prob(images[:2], labels=1)
    )
