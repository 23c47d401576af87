"""The masked self-prediction auxiliary decoder: codes that keep what can be told from afar.

A teacher guesses each element of x_{l-1} from those outside a window around it; a student, which sees the
codes alone, learns the teacher's guesses. What only the neighbours of an element know is in no guess, so the
codes need not hold it.
"""

from typing import Any

import keras
from keras import ops

from haim_tf.checks import require_positive_integers
from haim_tf.layers.types import Shape, Tensor
from haim_tf.networks.auxiliary import AUXILIARY_DECODERS, AuxiliaryDecoder
from haim_tf.networks.feed_forward import FeedForwardDecoder
from haim_tf.networks.teacher import (
    INTENSITIES,
    MaskedSelfPredictionTeacher,
    check_target,
    split_channels,
    take_positions,
)


@AUXILIARY_DECODERS.register("masked_self_prediction")
@keras.saving.register_keras_serializable(package="haim_tf")
class MaskedSelfPredictionDecoder(AuxiliaryDecoder):
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
        upsampling: int,
        width: int,
        blocks: int,
        channels: int | None = None,
        codebook_size: int | None = None,
        window: int = 5,
        bins: int = 32,
        positions: int | None = None,
        teacher: bool = True,
        teacher_width: int = 32,
        teacher_blocks: int = 4,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        require_positive_integers(upsampling=upsampling, width=width, blocks=blocks)
        if positions is not None:
            require_positive_integers(positions=positions)
        check_target(channels, bins if channels else None, codebook_size)
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

    def build(self, input_shape: Shape) -> None:
        self.student.build(input_shape)
        self.to_logits.build((None, self.width))
        if self.teacher:
            grid = (None, None, None)
            self.teacher.build(grid if self.codebook_size else (*grid, self.channels))

    def call(self, code_vectors: Tensor) -> Tensor:
        return self.student(code_vectors)

    def logits(self, outputs: Tensor, positions: Tensor | None = None) -> Tensor:
        """The student's distributions as the teacher's: float32 `(B, H, W, C, bins)` or `(B, H, W, K)`.

        Example:
            >>> decoder = MaskedSelfPredictionDecoder(upsampling=2, width=4, blocks=1, channels=1)
            >>> outputs = decoder(np.zeros((1, 4, 4, 8), "float32"))
            >>> tuple(decoder.logits(outputs).shape)
            (1, 8, 8, 1, 32)
        """
        outputs = ops.cast(outputs, "float32")
        if positions is not None:
            outputs = take_positions(outputs, positions)
        logits = self.to_logits(ops.swish(outputs))
        return logits if self.codebook_size else split_channels(logits, self.channels)

    def trained_layers(self) -> list[keras.Layer]:
        return [self.student, self.to_logits]

    @property
    def trainable_codes(self) -> bool:
        return self.teacher is not None

    def loss(self, outputs: Tensor, target: Tensor, training: bool = False) -> Tensor:
        """The loss that trains codes and student, as `losses` gives it."""
        return self.losses(outputs, target, training)["loss"]

    def teacher_loss(self, target: Tensor, training: bool = False) -> Tensor:
        """The loss that trains the teacher, as `losses` gives it."""
        positions = self._draw(target, training)
        return self._teacher_loss(self._guess(target, positions), target, positions)

    def losses(self, outputs: Tensor, target: Tensor, training: bool = False) -> dict[str, Tensor]:
        """The student's loss and the teacher's, float32 scalars, from one pass of the teacher.

        Args:
            outputs: what the call returned.
            target: float pixels (B, H, W, C) in -1..1, or int codes (B, H, W).
            training: whether to take them at random `positions`.

        Returns:
            A dict: `loss`, the cross-entropy of the student against the teacher's distribution, which no
            gradient passes to the teacher; and `teacher_loss`, the teacher's negative log-likelihood. Both in
            nats per element.

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
        return {"loss": student_loss, "teacher_loss": self._teacher_loss(guess, target, positions)}

    def reconstruct(self, outputs: Tensor) -> Tensor:
        """The mean of the student's distribution, float32 pixels in -1..1; of codes the likeliest, int32."""
        logits = self.logits(outputs)
        if self.codebook_size:
            return ops.cast(ops.argmax(logits, axis=-1), "int32")
        centres = self._centre(ops.arange(self.bins, dtype="float32"))
        return ops.sum(ops.softmax(logits, axis=-1) * centres, axis=-1)

    def sample(self, outputs: Tensor, seed: int | keras.random.SeedGenerator | None = None) -> Tensor:
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
            target = take_positions(target, positions)
        return ops.mean(ops.sparse_categorical_crossentropy(target, guess, from_logits=True))

    def _centre(self, bins):
        """The middle of the intensities in each bin, as pixels are scaled."""
        size = INTENSITIES // self.bins
        return (bins * size + (size - 1) / 2) * (2.0 / (INTENSITIES - 1)) - 1.0

    def get_config(self) -> dict:
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
