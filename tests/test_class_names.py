"""Classes by name: any part of a name, names near a wrong one, data brought to a model's labels."""

import types

import numpy as np
import pytest

from haim_tf.class_names import find_class, labelled_as, labels_of, names_of, relabelled
from haim_tf.data import ImageData

NAMES = ["goldfish, Carassius auratus", "lion, king of beasts", "sea lion", "crane", "crane, a bird"]


@pytest.mark.parametrize(
    "name, label",
    [
        ("goldfish", 0),
        ("GOLDFISH,  Carassius auratus", 0),
        ("king of beasts", 1),
        ("sea lion", 2),
        ("crane", 3),
    ],
)
def test_a_name_or_any_part_of_it(name, label):
    assert find_class(name, NAMES) == label


@pytest.mark.parametrize(
    "name, message",
    [
        ("goldfsh", "there is no class 'goldfsh'; did you mean 'goldfish, Carassius auratus'"),
        ("zzz", "the classes are 'goldfish, Carassius auratus', .*"),
    ],
)
def test_a_wrong_name_is_told_those_near_to_it(name, message):
    with pytest.raises(ValueError, match=message):
        find_class(name, NAMES)


def test_a_name_of_two_classes():
    with pytest.raises(ValueError, match=r"must be the name of one class, got that of the labels \[0, 1\]"):
        find_class("bird", ["jay, bird", "crane, bird"])


def test_labels_of_names_and_numbers():
    np.testing.assert_array_equal(labels_of(["lion", "goldfish"], NAMES), [1, 0])
    np.testing.assert_array_equal(labels_of(np.array(["lion", 2], object), NAMES), [1, 2])
    np.testing.assert_array_equal(labels_of([3, 1], None), [3, 1])
    assert labels_of("crane", NAMES) == 3
    np.testing.assert_array_equal(labels_of(["lion", 2, b"crane", np.int8(0)], NAMES), [1, 2, 3, 0])
    assert labels_of([], None).dtype == np.int32
    for wrong in (["lion", None], ["lion", 1.5], ["lion", True]):
        with pytest.raises(ValueError, match="labels must be integers or names of classes, got"):
            labels_of(wrong, NAMES)


def test_accents_are_the_same_however_they_are_written():
    assert find_class("cafe\u0301", ["tea", "caf\u00e9"]) == 1


@pytest.mark.parametrize("names", ["abc", 5, [b"a"], ["a", 1], {"a": 0}])
def test_names_are_a_list_of_texts(names):
    with pytest.raises(ValueError, match="class_names must be a list of texts, got"):
        names_of(names)
    assert names_of(("a", "b")) == names_of(np.array(["a", "b"])) == ["a", "b"]


def model(names=NAMES, num_classes=5):
    return types.SimpleNamespace(class_names=names, num_classes=num_classes)


def data(labels, names):
    return ImageData(np.zeros((len(labels), 2, 2, 1), "uint8"), labels, names)


def test_data_takes_the_labels_of_its_names():
    found = relabelled(data([1, 0, 1], ["Sea Lion", "goldfish"]), model())
    assert found.labels.tolist() == [0, 2, 0] and found.class_names == NAMES
    # A class that no image has need not be known.
    assert relabelled(data([1], ["trumpet", "lion"]), model()).labels.tolist() == [1]


@pytest.mark.parametrize(
    "labels, names, message",
    [
        ([0], ["goldfsh"], "did you mean 'goldfish"),
        ([0, 1], ["lion", "king of beasts"], "'lion' and 'king of beasts' are both 'lion.* of the model"),
        ([7], None, r"labels must lie in 0\.\.4, got 7"),
    ],
)
def test_what_does_not_fit_is_refused(labels, names, message):
    with pytest.raises(ValueError, match=message):
        relabelled(data(labels, names), model(), say=lambda text: None)


def test_without_names_numbers_count_and_that_is_said():
    for names, known, who in ((None, NAMES, "images"), (["a", "b"], None, "the model")):
        said = []
        assert relabelled(data([1, 0], names), model(known), said.append).labels.tolist() == [1, 0]
        assert said == [f"{who} has no class names: labels stand for each other by their numbers"]
    unconditional = data([1, 0], ["a", "b"])
    assert relabelled(unconditional, model(None, None)) is unconditional


def test_the_sentence_goes_to_standard_error_and_nothing_is_said_of_numbers_alone(capsys):
    relabelled(data([1, 0], None), model())
    assert capsys.readouterr() == (
        "",
        "images has no class names: labels stand for each other by their numbers\n",
    )
    relabelled(data([1, 0], None), model(None))
    assert capsys.readouterr() == ("", "")


def test_either_side_may_have_more_names_for_a_class():
    images = np.zeros((2, 4, 4, 1), "uint8")
    short = ImageData(images, [0, 1], class_names=["lion", "goldfish"])
    long = ImageData(images, [0, 1], class_names=["goldfish, Carassius auratus", "lion, king of beasts"])
    assert labelled_as(short, long).labels.tolist() == labelled_as(long, short).labels.tolist() == [1, 0]
    with pytest.raises(ValueError, match="images does not fit images: there is no class 'trumpet, brass'"):
        labelled_as(ImageData(images, [0, 0], class_names=["trumpet, brass"]), short)


def test_capitals_matter_where_nothing_else_differs():
    names = ["Apple", "apple", "pear"]
    assert [find_class(name, names) for name in ("Apple", "apple", "PEAR")] == [0, 1, 2]
    with pytest.raises(ValueError, match="must be the name of one class"):
        find_class("APPLE", names)


def test_a_name_that_stands_there_many_times_is_looked_for_once(monkeypatch):
    asked = []

    def find(name, class_names):
        asked.append(name)
        return find_class(name, class_names)

    monkeypatch.setattr("haim_tf.class_names.find_class", find)
    labels = np.array(["lion", "goldfish"] * 1000)
    np.testing.assert_array_equal(labels_of(labels, NAMES), [1, 0] * 1000)
    assert sorted(asked) == ["goldfish", "lion"]
