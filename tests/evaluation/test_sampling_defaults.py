"""Choosing sampling defaults: the walk finds the best of each list, within its number of draws."""

import json

import numpy as np
import pytest

from haim_tf.data import ImageData
from haim_tf.evaluation import choose_sampling


class Rigged:
    """A model whose images are the darker the farther its settings are from some best ones."""

    num_levels, num_classes, takes_guidance, image_shape = 2, 3, True, (2, 2, 1)
    class_names = None
    variables = ()

    def __init__(self, best):
        self.best, self.asked, self.sampling_defaults = best, [], None

    def sample(self, num, labels, seed, batch_size, verbose, **sampling):
        self.asked.append((sampling, list(labels)))
        distance = sum(np.abs(np.subtract(sampling[name], self.best[name])).sum() for name in self.best)
        noise = np.random.default_rng(0).integers(0, 5, (num, 2, 2, 1))
        return (noise + round(100 * distance)).astype("uint8")

    @property
    def sampling_defaults(self):
        return self._defaults or {"temperature": [1.0] * 3, "top_p": [1.0] * 3, "guidance": 1.0}

    @sampling_defaults.setter
    def sampling_defaults(self, values):
        self._defaults = values


BEST = {"temperature": [0.8, 1.0, 0.9], "top_p": [1.0, 1.0, 0.95], "guidance": 2.0}


@pytest.fixture
def images():
    noise = np.random.default_rng(1).integers(0, 5, (40, 2, 2, 1)).astype("uint8")
    return ImageData(noise, np.arange(40) % 3)


def extractor(images):
    return images.reshape(len(images), -1)


def test_the_walk_ends_at_the_best_and_the_model_keeps_its_own(images):
    model = Rigged(BEST)
    model.sampling_defaults = {"guidance": 7}
    chosen, log = choose_sampling(model, images, extractor, num=30, draws=40, verbose=False)
    assert chosen == BEST
    assert min(log, key=lambda draw: draw["distance"])["sampling"] == BEST
    assert model.sampling_defaults == {"guidance": 7}
    assert {tuple(labels) for _, labels in model.asked} == {tuple(images.labels[np.arange(30) * 40 // 30])}
    settings = [json.dumps(sampling) for sampling, _ in model.asked]
    assert len(set(settings)) == len(settings) == len(log)


def test_small_steps_come_last_in_both_directions(images):
    best = {"temperature": [0.87, 1.0, 1.06], "top_p": [1.0] * 3, "guidance": 1.75}
    chosen, log = choose_sampling(Rigged(best), images, extractor, num=30, draws=60, verbose=False)
    assert chosen == best
    fine = [0.87 in draw["sampling"]["temperature"] for draw in log]
    top_p = [draw["sampling"]["top_p"] != [1.0] * 3 for draw in log]
    assert any(top_p) and not any(top_p[fine.index(True) :])


def test_guidance_never_goes_below_plain(images):
    model = Rigged({"temperature": [1.0] * 3, "top_p": [1.0] * 3, "guidance": 0.5})
    chosen, _ = choose_sampling(model, images, extractor, num=30, draws=60, verbose=False)
    assert chosen["guidance"] == 1.0 and min(sampling["guidance"] for sampling, _ in model.asked) == 1.0


def test_a_model_that_has_none_is_left_so(images):
    model = Rigged(BEST)
    choose_sampling(model, images, extractor, num=30, draws=3, verbose=False)
    assert model._defaults is None


def test_labels_are_matched_by_name_before_any_draw(images):
    model = Rigged(BEST)
    model.class_names = ["bag", "coat", "sneaker"]
    named = ImageData(images.images, images.labels, ["Sneaker", "Bag", "Coat"])
    choose_sampling(model, named, extractor, num=30, draws=1, verbose=False)
    assert model.asked[0][1] == np.array([2, 0, 1])[images.labels[np.arange(30) * 40 // 30]].tolist()
    for wrong, message in ((["bags", "b", "c"], "did you mean 'bag'"), (None, "must have labels")):
        other = ImageData(images.images, images.labels if wrong else None, wrong)
        with pytest.raises(ValueError, match=message):
            choose_sampling(model, other, None, verbose=False)


@pytest.mark.parametrize("draws", [1, 4])
def test_no_more_draws_than_asked(images, draws):
    model = Rigged(BEST)
    chosen, log = choose_sampling(model, images, extractor, num=30, draws=draws, verbose=False)
    assert len(log) == draws
    assert chosen == min(log, key=lambda draw: draw["distance"])["sampling"]


def test_samples_are_of_all_classes_where_images_are_sorted_by_class(images):
    model = Rigged(BEST)
    images = ImageData(images.images, np.sort(images.labels))
    choose_sampling(model, images, extractor, num=6, draws=1, verbose=False)
    assert sorted(set(model.asked[0][1])) == [0, 1, 2]
