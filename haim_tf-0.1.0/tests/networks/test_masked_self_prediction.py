"""The masked self-prediction decoder: what the teacher sees, who learns from whom, losses against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from haim_tf.networks import MaskedSelfPredictionDecoder, MaskedSelfPredictionTeacher

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(2, 3, 4, 5)).astype("float32")
PIXELS = RNG.integers(256, size=(2, 6, 8, 3)).astype("float32") / 127.5 - 1
CODES = RNG.integers(7, size=(2, 6, 8)).astype("int32")
KINDS = {"pixels": {"channels": 3, "bins": 8}, "codes": {"codebook_size": 7}}
TARGETS = {"pixels": PIXELS, "codes": CODES}


def make(kind, upsampling=2, **arguments):
    small = {"width": 6, "blocks": 1, "teacher_width": 4, "teacher_blocks": 1}
    return MaskedSelfPredictionDecoder(upsampling, **{**small, **KINDS[kind], **arguments})


@pytest.fixture(params=list(KINDS))
def case(request):
    decoder = make(request.param)
    return decoder, decoder(VECTORS), TARGETS[request.param]


def softmax(logits):
    exp = np.exp(np.array(logits, "float64"))
    return exp / exp.sum(-1, keepdims=True)


# What the teacher sees -------------------------------------------------------------------------------


def seen(shape, window, rows_reach, columns_reach):
    """Bools (H W, H W): which elements are in one of the four half-planes outside the window, in reach."""
    rows, columns = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
    down, right = (np.abs(axis[None] - axis[:, None]) for axis in (rows, columns))
    half = window // 2
    beyond_rows = (down > half) & (down <= half + 1 + rows_reach) & (right <= columns_reach)
    return beyond_rows | ((right > half) & (right <= half + 1 + rows_reach) & (down <= columns_reach))


@pytest.mark.parametrize(
    ("window", "shape", "blocks"),
    [(1, (5, 7), 6), (3, (5, 7), 6), (5, (7, 6), 6), (9, (11, 7), 6), (9, (4, 12), 3), (3, (12, 10), 1)],
)
def test_a_guess_depends_on_everything_outside_the_window_and_nothing_inside(
    window, shape, blocks, dependence
):
    """At every position, borders and corners among them; with 6 blocks the whole grid is in reach."""
    teacher = MaskedSelfPredictionTeacher(window, 6, blocks, channels=1, bins=4)
    found = dependence(teacher, (*shape, 1))
    np.testing.assert_array_equal(found, seen(shape, window, 2 * (blocks + 1), blocks + 1))
    if blocks == 6:
        rows, columns = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
        distance = np.maximum(abs(rows - rows[:, None]), abs(columns - columns[:, None]))
        np.testing.assert_array_equal(found, distance > window // 2)


@pytest.mark.parametrize("window", [1, 3])
def test_a_guess_of_a_code_depends_on_the_codes_outside_the_window(window):
    teacher = MaskedSelfPredictionTeacher(window, 6, 1, codebook_size=7)
    guess = np.array(teacher(CODES))
    expected = seen((6, 8), window, 4, 2)
    for element in (0, 19, 27, 47):
        changed = CODES.copy().reshape(2, -1)
        changed[0, element] = (changed[0, element] + 1) % 7
        moved = np.array(teacher(changed.reshape(CODES.shape))) != guess
        assert not moved[1].any(), "examples depend on each other"
        np.testing.assert_array_equal(moved[0].any(-1).ravel(), expected[:, element])


def test_all_channels_of_the_window_are_hidden():
    teacher = MaskedSelfPredictionTeacher(3, 6, 2, channels=3, bins=4)
    inputs = tf.constant(PIXELS)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        guess = tf.reduce_sum(teacher(inputs)[0, 3, 4, 1] * [1.0, 2.0, 3.0, 4.0])
    reached = np.abs(tape.gradient(guess, inputs))[0] > 0
    assert not reached[2:5, 3:6].any()
    assert reached[1, 4].all() and reached[3, 6].all() and reached[3, 2].all() and reached[5, 4].all()


def test_guesses_at_some_positions_are_those_among_all():
    for kind, target in TARGETS.items():
        teacher = MaskedSelfPredictionTeacher(3, 4, 1, **KINDS[kind])
        everywhere = np.array(teacher(target))
        flat = everywhere.reshape(2, 48, *everywhere.shape[3:])
        positions = np.array([47, 3, 20])
        np.testing.assert_allclose(teacher(target, positions=positions), flat[:, positions], atol=1e-6)


# Losses ----------------------------------------------------------------------------------------------


def test_losses_against_numpy(case):
    decoder, outputs, target = case
    student_loss, teacher_loss = decoder.losses(outputs, target).values()
    guess, student = softmax(decoder.teacher(target)), softmax(decoder.logits(outputs))
    if decoder.channels:
        assert guess.shape == student.shape == (2, 6, 8, 3, 8)
        target_bins = np.round((target + 1) * 127.5).astype(int) // 32
    else:
        assert guess.shape == student.shape == (2, 6, 8, 7)
        target_bins = target
    likelihood = np.take_along_axis(guess, target_bins[..., None], -1)
    np.testing.assert_allclose(teacher_loss, -np.log(likelihood).mean(), rtol=1e-5)
    np.testing.assert_allclose(student_loss, -(guess * np.log(student)).sum(-1).mean(), rtol=1e-5)
    assert student_loss.dtype == teacher_loss.dtype == "float32"
    np.testing.assert_allclose(decoder.loss(outputs, target), student_loss)
    np.testing.assert_allclose(decoder.teacher_loss(target), teacher_loss)


@pytest.mark.parametrize("initially", ["fresh", "random"])
def test_the_students_loss_trains_student_and_code_vectors_the_teachers_the_teacher(case, initially):
    decoder, _, target = case
    if initially == "random":
        decoder.set_weights([RNG.normal(0, 0.5, w.shape) for w in decoder.get_weights()])
    vectors = tf.constant(VECTORS)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(vectors)
        student_loss, teacher_loss = decoder.losses(decoder(vectors), target, training=True).values()
    student = [v.value for v in [*decoder.student.weights, *decoder.to_logits.weights]]
    teacher = [v.value for v in decoder.teacher.weights]
    assert len(student) + len(teacher) == len(decoder.trainable_variables)
    assert tape.gradient(student_loss, teacher) == [None] * len(teacher)
    assert tape.gradient(teacher_loss, [vectors, *student]) == [None] * (1 + len(student))
    for loss, parts in ((student_loss, [vectors, *student]), (teacher_loss, teacher)):
        for gradient in tape.gradient(loss, parts):
            assert np.abs(tf.convert_to_tensor(gradient)).max() > 0


@pytest.mark.parametrize("kind", list(KINDS))
def test_random_positions_in_training_only(kind):
    decoder, target = make(kind, positions=5, seed=3), TARGETS[kind]
    outputs = decoder(VECTORS)
    whole = np.array([*decoder.losses(outputs, target).values()])
    drawn = np.array([[*decoder.losses(outputs, target, training=True).values()] for _ in range(30)])
    assert len(np.unique(drawn[:, 1])) > 20
    np.testing.assert_allclose(drawn.mean(0), whole, rtol=0.05)
    np.testing.assert_array_equal([*decoder.losses(outputs, target).values()], whole)
    many = make(kind, positions=48)
    many.build(VECTORS.shape)
    many.set_weights(decoder.get_weights())
    np.testing.assert_allclose([*many.losses(outputs, target, training=True).values()], whole, rtol=1e-5)


def test_the_students_best_is_the_teachers_distribution(case):
    """With a student that says what the teacher does, cross-entropy is the teacher's entropy, its least."""
    decoder, outputs, target = case
    guess = decoder.teacher(target)
    loss = decoder.loss(outputs, target)
    decoder.logits = lambda outputs, positions=None: guess
    probabilities = softmax(guess)
    entropy = -(probabilities * np.log(probabilities)).sum(-1).mean()
    np.testing.assert_allclose(decoder.loss(outputs, target), entropy, rtol=1e-5)
    assert loss > entropy


# Reconstructions -------------------------------------------------------------------------------------


def test_reconstructs_the_mean_of_the_students_distribution():
    decoder = make("pixels")
    outputs = 10 * decoder(VECTORS)
    centres = np.array([np.arange(32 * i, 32 * i + 32).mean() for i in range(8)]) / 127.5 - 1
    expected = (softmax(decoder.logits(outputs)) * centres).sum(-1)
    images = decoder.reconstruct(outputs)
    assert images.shape == PIXELS.shape and images.dtype == "float32"
    np.testing.assert_allclose(images, expected, atol=1e-5)
    assert np.unique(
        np.round(make("pixels", bins=256)._centre(np.arange(256.0)) * 127.5 + 127.5, 3)
    ).tolist() == [*range(256)]


def test_reconstructs_the_likeliest_codes():
    decoder = make("codes")
    outputs = decoder(VECTORS)
    codes = decoder.reconstruct(outputs)
    assert codes.dtype == "int32"
    np.testing.assert_array_equal(codes, np.argmax(decoder.logits(outputs), -1))


def test_samples_follow_the_students_distribution(case):
    decoder, outputs, target = case
    decoder.to_logits.bias.assign(3 * RNG.normal(size=decoder.to_logits.bias.shape))
    drawn = np.stack([decoder.sample(outputs, seed=s) for s in range(300)])
    assert drawn.dtype == target.dtype and drawn.shape[1:] == target.shape
    probabilities = softmax(decoder.logits(outputs))
    values = np.arange(7) if decoder.codebook_size else np.array(decoder._centre(np.arange(8.0)))
    shares = np.stack([np.isclose(drawn, v, atol=1e-5).mean(0) for v in values], -1)
    np.testing.assert_allclose(shares.sum(-1), 1)
    assert np.abs(shares - probabilities).max() < 0.15
    np.testing.assert_allclose(shares.mean((0, 1, 2)), probabilities.mean((0, 1, 2)), atol=0.02)
    np.testing.assert_array_equal(decoder.sample(outputs, seed=5), drawn[5])


# Configuration ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(KINDS))
def test_without_a_teacher_it_decodes_and_cannot_be_trained(kind):
    decoder, whole = make(kind, teacher=False), make(kind)
    outputs = decoder(VECTORS)
    whole(VECTORS)
    assert decoder.get_config()["teacher"] is False
    assert len(decoder.weights) == len(whole.student.weights) + 2
    assert decoder.reconstruct(outputs).shape == TARGETS[kind].shape
    for call in (lambda: decoder.loss(outputs, TARGETS[kind]), lambda: decoder.teacher_loss(TARGETS[kind])):
        with pytest.raises(ValueError, match="the teacher was dropped"):
            call()


@pytest.mark.parametrize("kind", list(KINDS))
def test_mixed_precision_ends_in_float32(kind):
    decoder, target = make(kind, dtype="mixed_bfloat16"), TARGETS[kind]
    outputs = decoder(VECTORS)
    assert outputs.dtype == decoder.logits(outputs).dtype == decoder.teacher(target).dtype == "float32"
    assert {loss.dtype for loss in decoder.losses(outputs, target).values()} == {tf.float32}
    assert decoder.teacher.stacks[0].convs[0].compute_dtype == "bfloat16"
    assert decoder.student.stack.compute_dtype == "bfloat16"


@pytest.mark.parametrize(
    "arguments,named",
    [
        ({"window": 4}, "window must be odd, got 4"),
        ({"window": -1}, "window must be an integer of at least 1"),
        ({"bins": 48}, "bins must be a power of 2"),
        ({"bins": 1}, "bins must be a power of 2"),
        ({"positions": 0}, "positions"),
        ({"teacher_width": 0}, "width"),
        ({"width": 0}, "width"),
        ({"codebook_size": 7}, "exactly one"),
        ({"channels": None}, "exactly one"),
    ],
)
def test_bad_arguments(arguments, named):
    for teacher in (True, False):
        with pytest.raises(ValueError, match=named):
            make("pixels", teacher=teacher, **arguments)


def test_bad_targets():
    decoder = make("pixels")
    with pytest.raises(ValueError, match="height and width"):
        decoder.loss(decoder(VECTORS), PIXELS[:, :4])
