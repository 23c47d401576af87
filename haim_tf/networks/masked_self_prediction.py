"""The masked self-prediction auxiliary decoder: codes that keep what can be told from afar.

A teacher guesses each element of x_{l-1} from those outside a window around it; a student, which sees the
codes alone, learns the teacher's guesses. What only the neighbours of an element know is in no guess, so the
codes need not hold it.
"""

import keras
from keras import ops

from haim_tf.layers.residual import require_positive_integers
from haim_tf.networks.auxiliary import FeedForwardDecoder

INTENSITIES = 256


class HalfPlaneStack(keras.layers.Layer):
    """Convolutions that see a position's own row and those above it, all columns alike.

    A k x k convolution, then pre-activated residual blocks of one each: a stack of n blocks reaches
    (k - 1) (n + 1) rows up and (k // 2) (n + 1) columns to both sides.

    Args:
        width: channels. blocks: residual blocks. kernel_size: k, odd.

    Input `(B, H, W, C)`, output `(B, H, W, width)`.
    """

    def __init__(self, width, blocks, kernel_size=3, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.kernel_size = kernel_size
        policy = self.dtype_policy
        self.convs = [keras.layers.Conv2D(width, kernel_size, dtype=policy) for _ in range(blocks + 1)]
        self.pointwise = [
            keras.layers.Dense(
                width, kernel_initializer=keras.initializers.VarianceScaling(0.01), dtype=policy
            )
            for _ in range(blocks)
        ]

    def build(self, input_shape):
        inside = (None, None, None, self.width)
        for i, conv in enumerate(self.convs):
            conv.build((None, None, None, input_shape[-1]) if i == 0 else inside)
        for dense in self.pointwise:
            dense.build(inside)

    def call(self, inputs):
        first, *convs = self.convs
        hidden = first(self._pad(inputs))
        for conv, dense in zip(convs, self.pointwise, strict=True):
            hidden = hidden + dense(ops.swish(conv(self._pad(ops.swish(hidden)))))
        return hidden

    def _pad(self, inputs):
        side = self.kernel_size // 2
        return ops.pad(inputs, [[0, 0], [self.kernel_size - 1, 0], [side, side], [0, 0]])


@keras.saving.register_keras_serializable(package="haim_tf")
class MaskedSelfPredictionTeacher(keras.layers.Layer):
    """Guesses every element of a grid from the elements outside a window centred on it, in one pass.

    Four stacks of convolutions (`HalfPlaneStack`, rotated) read the half-planes above, below, left and right
    of a position. Each is shifted so that it ends where the window begins, and only position-wise layers
    join them: the guess depends on nothing inside the window, and on everything outside it within the
    stacks' reach, which is (k - 1) (n + 1) elements from the window for kernel size k and n blocks, and
    half as far sideways.

    Args:
        window: side s of the window, odd; with 1 only the element itself is hidden.
        width, blocks, kernel_size: channels, residual blocks and kernel of each of the four stacks.
        channels, bins: the grid is pixels of so many channels, guessed channel by channel over `bins`
            equal intervals of the intensities; or
        codebook_size: the grid is codes of so many values.

    Call arguments:
        grid: float pixels `(B, H, W, C)` in -1..1, or int codes `(B, H, W)`.
        positions: which positions to guess, int `(n,)` in raster order; `None`: all of them.

    Output: logits, float32 `(B, H, W, C, bins)` or `(B, H, W, K)`; with positions `(B, n, ...)`.

    Raises:
        ValueError: an argument that is not as stated.

    Example:
        >>> teacher = MaskedSelfPredictionTeacher(window=5, width=8, blocks=1, channels=3, bins=32)
        >>> tuple(teacher(np.zeros((2, 16, 16, 3), "float32")).shape)
        (2, 16, 16, 3, 32)

    Reference: the paper, section 3.2. NOTE: see `MaskedSelfPredictionDecoder` for what is known of it.
    """

    def __init__(
        self,
        window,
        width=32,
        blocks=4,
        kernel_size=3,
        channels=None,
        bins=None,
        codebook_size=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        require_positive_integers(window=window, width=width, blocks=blocks, kernel_size=kernel_size)
        for name, value in {"window": window, "kernel_size": kernel_size}.items():
            if value % 2 == 0:
                raise ValueError(f"{name} must be odd, got {value}")
        _check_target(channels, bins, codebook_size)
        self.window = window
        self.width = width
        self.blocks = blocks
        self.kernel_size = kernel_size
        self.channels = channels
        self.bins = bins
        self.codebook_size = codebook_size
        policy = self.dtype_policy
        self.embedding = None
        if codebook_size is not None:
            self.embedding = keras.layers.Embedding(codebook_size, width, dtype=policy)
        self.stacks = [HalfPlaneStack(width, blocks, kernel_size, dtype=policy) for _ in range(4)]
        self.merge = keras.layers.Dense(2 * width, activation="swish", dtype=policy)
        self.hidden = keras.layers.Dense(2 * width, activation="swish", dtype=policy)
        self.to_logits = keras.layers.Dense(codebook_size or channels * bins, dtype="float32")

    def build(self, input_shape):
        if self.embedding:
            self.embedding.build(input_shape)
        for stack in self.stacks:
            stack.build((None, None, None, self.width if self.embedding else self.channels))
        self.merge.build((None, 4 * self.width))
        self.hidden.build((None, 2 * self.width))
        self.to_logits.build((None, 2 * self.width))

    def call(self, grid, positions=None):
        if self.embedding:
            grid = self.embedding(grid)
        _, height, width, _ = grid.shape
        sides = []
        for turns, stack in enumerate(self.stacks):
            sides.append(_rotate(self._shift(stack(_rotate(grid, turns))), -turns))
        seen = ops.swish(ops.concatenate(sides, axis=-1))
        if positions is not None:
            seen = _take(seen, positions)
        logits = self.to_logits(self.hidden(self.merge(seen)))
        return logits if self.codebook_size else _split_channels(logits, self.channels)

    def _shift(self, hidden):
        """Moves what a position sees up to its own row down, past the window below that row."""
        rows = hidden.shape[1]
        return ops.pad(hidden, [[0, 0], [self.window // 2 + 1, 0], [0, 0], [0, 0]])[:, :rows]

    def get_config(self):
        return super().get_config() | {
            "window": self.window,
            "width": self.width,
            "blocks": self.blocks,
            "kernel_size": self.kernel_size,
            "channels": self.channels,
            "bins": self.bins,
            "codebook_size": self.codebook_size,
        }


@keras.saving.register_keras_serializable(package="haim_tf")
class MaskedSelfPredictionDecoder(keras.layers.Layer):
    """Trains codes by what the surroundings of each element of x_{l-1} tell about it.

    The `teacher`, a `MaskedSelfPredictionTeacher`, sees x_{l-1} but not the codes, and learns by its own
    log-likelihood. The student sees the codes alone, decodes all positions independently, and learns by
    cross-entropy against the teacher's distribution, through which no gradient passes. The wider the window,
    the less local detail is in that distribution and so in the codes.

    Inside a `HierarchicalModel` the teacher is a part of its own, `teacher_1` at level 1, trained together
    with the student by default. To train it first, freeze every other part, then `freeze("teachers")`;
    `without_teachers()` gives the model without it.

    NOTE: the paper says of this decoder that it is trained to predict not the input but the output of
    another network, which predicts each position from an input with a window around that position masked
    out, and that larger windows drop more detail; it leaves open that network's architecture, its
    distribution, and how and when it is trained. This project's reading: teacher and student as above,
    together by default; distributions over `bins` intensities a channel, channels independent; a teacher
    of four half-plane stacks, which gives all positions from one pass.

    Args:
        upsampling, width, blocks: of the student, as of a `FeedForwardDecoder`.
        channels: C of the pixels to decode; or
        codebook_size: K of the lower codes to decode. Exactly one of the two.
        window: side s of the window hidden from the teacher, odd.
        bins: intervals of a pixel's intensity, 2 to 256, a power of 2 (pixels only).
        positions: how many positions, drawn at random at each step, the cross-entropies in training are
            taken at, where memory or time ask for it; `None`: all. Outside training it is always all.
        teacher: whether there is one. Without it the decoder reconstructs, and cannot be trained.
        teacher_width, teacher_blocks: channels and residual blocks of each of its four stacks.
        seed: int for the positions drawn, or `None`.

    Input: code vectors (B, h, w, D), float.
    Output: the student's features, float32 (B, H, W, width), which `logits`, `loss`, `reconstruct` and
    `sample` take; a distribution over 256 bins at every position would fill the memory.

    Raises:
        ValueError: an argument that is not as stated; both or none of channels and codebook_size.

    Example:
        >>> decoder = MaskedSelfPredictionDecoder(upsampling=4, width=16, blocks=1, channels=3, window=5)
        >>> outputs = decoder(np.zeros((2, 8, 8, 4), "float32"))
        >>> tuple(decoder.logits(outputs).shape), tuple(decoder.reconstruct(outputs).shape)
        ((2, 32, 32, 3, 32), (2, 32, 32, 3))

    Reference: the paper, section 3.2 (masked self-prediction).
    """

    def __init__(
        self,
        upsampling,
        width,
        blocks,
        channels=None,
        codebook_size=None,
        window=5,
        bins=32,
        positions=None,
        teacher=True,
        teacher_width=32,
        teacher_blocks=4,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        require_positive_integers(upsampling=upsampling, width=width, blocks=blocks)
        if positions is not None:
            require_positive_integers(positions=positions)
        _check_target(channels, bins if channels else None, codebook_size)
        self.upsampling = upsampling
        self.width = width
        self.blocks = blocks
        self.channels = channels
        self.codebook_size = codebook_size
        self.window = window
        self.bins = bins
        self.positions = positions
        self.teacher_width = teacher_width
        self.teacher_blocks = teacher_blocks
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.input_spec = keras.layers.InputSpec(ndim=4)
        policy = self.dtype_policy
        # Made in any case: it checks the arguments.
        made = MaskedSelfPredictionTeacher(
            window,
            teacher_width,
            teacher_blocks,
            channels=channels,
            bins=bins if channels else None,
            codebook_size=codebook_size,
            dtype=policy,
        )
        self.teacher = made if teacher else None
        self.student = FeedForwardDecoder(upsampling, width, blocks, channels=width, dtype=policy)
        self.to_logits = keras.layers.Dense(codebook_size or channels * bins, dtype="float32")

    def build(self, input_shape):
        self.student.build(input_shape)
        self.to_logits.build((None, self.width))
        if self.teacher:
            grid = (None, None, None)
            self.teacher.build(grid if self.codebook_size else (*grid, self.channels))

    def call(self, code_vectors):
        return self.student(code_vectors)

    def logits(self, outputs, positions=None):
        """The student's distributions as the teacher's: float32 `(B, H, W, C, bins)` or `(B, H, W, K)`."""
        outputs = ops.cast(outputs, "float32")
        if positions is not None:
            outputs = _take(outputs, positions)
        logits = self.to_logits(ops.swish(outputs))
        return logits if self.codebook_size else _split_channels(logits, self.channels)

    def loss(self, outputs, target, training=False):
        """The loss that trains codes and student, as `losses` gives it."""
        return self.losses(outputs, target, training)[0]

    def teacher_loss(self, target, training=False):
        """The loss that trains the teacher, as `losses` gives it."""
        positions = self._draw(target, training)
        return self._teacher_loss(self._guess(target, positions), target, positions)

    def losses(self, outputs, target, training=False):
        """The student's loss and the teacher's, float32 scalars, from one pass of the teacher.

        Args:
            outputs: what the call returned.
            target: float pixels (B, H, W, C) in -1..1, or int codes (B, H, W).
            training: whether to take them at random `positions`.

        Returns:
            The cross-entropy of the student against the teacher's distribution, which no gradient passes to
            the teacher; and the teacher's negative log-likelihood. Both in nats per element.

        Raises:
            ValueError: there is no teacher; outputs and target differ in shape.
        """
        if tuple(target.shape[1:3]) != tuple(outputs.shape[1:3]):
            raise ValueError(
                f"target must have height and width {tuple(outputs.shape[1:3])}, got {tuple(target.shape)}"
            )
        positions = self._draw(target, training)
        guess = self._guess(target, positions)
        taught = ops.stop_gradient(ops.softmax(guess, axis=-1))
        student = ops.log_softmax(self.logits(outputs, positions), axis=-1)
        student_loss = -ops.mean(ops.sum(taught * student, axis=-1))
        return student_loss, self._teacher_loss(guess, target, positions)

    def reconstruct(self, outputs):
        """The mean of the student's distribution, float32 pixels in -1..1; of codes the likeliest, int32."""
        logits = self.logits(outputs)
        if self.codebook_size:
            return ops.cast(ops.argmax(logits, axis=-1), "int32")
        centres = self._centre(ops.arange(self.bins, dtype="float32"))
        return ops.sum(ops.softmax(logits, axis=-1) * centres, axis=-1)

    def sample(self, outputs, seed=None):
        """Draws every element from the student's distribution, independently of the others.

        Args:
            outputs: what the call returned.
            seed: an int, a `keras.random.SeedGenerator`, or `None`.

        Returns:
            float32 pixels (B, H, W, C), the middles of the drawn intervals in -1..1; or int32 codes.
        """
        logits = self.logits(outputs)
        drawn = keras.random.categorical(
            ops.reshape(logits, (-1, logits.shape[-1])), 1, dtype="int32", seed=seed
        )
        drawn = ops.reshape(drawn, ops.shape(logits)[:-1])
        return drawn if self.codebook_size else self._centre(ops.cast(drawn, "float32"))

    def _draw(self, target, training):
        if self.teacher is None:
            raise ValueError(f"the teacher was dropped: {self.name} cannot be trained, only decode")
        count = target.shape[1] * target.shape[2]
        if not training or self.positions is None or self.positions >= count:
            return None
        return keras.random.shuffle(ops.arange(count), seed=self.seed_generator)[: self.positions]

    def _guess(self, target, positions):
        return ops.cast(self.teacher(target, positions=positions), "float32")

    def _teacher_loss(self, guess, target, positions):
        if not self.codebook_size:
            intensities = ops.round((ops.cast(target, "float32") + 1.0) * (0.5 * (INTENSITIES - 1)))
            intensities = ops.clip(ops.cast(intensities, "int32"), 0, INTENSITIES - 1)
            target = intensities // (INTENSITIES // self.bins)
        if positions is not None:
            target = _take(target, positions)
        return ops.mean(ops.sparse_categorical_crossentropy(target, guess, from_logits=True))

    def _centre(self, bins):
        """The middle of the intensities in each bin, as pixels are scaled."""
        size = INTENSITIES // self.bins
        return (bins * size + (size - 1) / 2) * (2.0 / (INTENSITIES - 1)) - 1.0

    def get_config(self):
        return super().get_config() | {
            "upsampling": self.upsampling,
            "width": self.width,
            "blocks": self.blocks,
            "channels": self.channels,
            "codebook_size": self.codebook_size,
            "window": self.window,
            "bins": self.bins,
            "positions": self.positions,
            "teacher": self.teacher is not None,
            "teacher_width": self.teacher_width,
            "teacher_blocks": self.teacher_blocks,
            "seed": self.seed,
        }


def _check_target(channels, bins, codebook_size):
    """A ValueError unless the arguments describe pixels in bins, or codes, and not both."""
    if (channels is None) == (codebook_size is None):
        raise ValueError(
            "exactly one of channels (pixels) and codebook_size (codes) must be given, "
            f"got channels={channels!r}, codebook_size={codebook_size!r}"
        )
    if channels is None:
        require_positive_integers(codebook_size=codebook_size)
        return
    require_positive_integers(channels=channels, bins=bins)
    if bins < 2 or INTENSITIES % bins:
        raise ValueError(f"bins must be a power of 2 from 2 to {INTENSITIES}, got {bins}")


def _rotate(grid, turns):
    """`(B, H, W, C)` turned by quarters. NOTE: keras 3.15.1's `ops.rot90` is wrong for half a turn."""
    if turns % 4 >= 2:
        grid = ops.flip(grid, axis=(1, 2))
    return ops.flip(ops.transpose(grid, (0, 2, 1, 3)), axis=1) if turns % 2 else grid


def _take(grid, positions):
    """Elements `(B, n, ...)` of a grid `(B, H, W, ...)` at positions in raster order."""
    count = grid.shape[1] * grid.shape[2]
    return ops.take(ops.reshape(grid, (-1, count, *grid.shape[3:])), positions, axis=1)


def _split_channels(logits, channels):
    *outside, last = logits.shape
    return ops.reshape(logits, (-1, *outside[1:], channels, last // channels))
