"""Completing images: the unknown pixels drawn from the model, given the known ones.

The main decoder of the pixels looks back in raster order only; what is known ahead reaches a pixel through
the codes, which are drawn so that they explain the known pixels:

1. Codes whose whole field of view is known are the encoder's own.
2. For the others, several candidates are drawn, level by level. Where a code's own cell is known, a guide
   tells which codes are likely there: how often the encoder gives each of them with the unknown pixels filled
   in from top codes drawn before (`_ROUNDS` times, each guided by the last; the auxiliary decoders paint).
3. The pixels are drawn by the main decoder, the known ones forced. A candidate's importance weight is the
   probability of what was forced and the ratio of model to guided proposal for what was guided; one candidate
   is kept with a probability proportional to its weight.

What is exact: the known pixels; the codes of 1; the weights, which are the model's, whatever the guide. What
is approximate: with few candidates, completions follow the proposal more than the posterior, to which they
tend as `candidates` grows; and that is the posterior of the model's own joint distribution of codes and
pixels, which does not know that codes are a function of the image.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from haim_tf import progress
from haim_tf.checks import require_int, require_positive_integers
from haim_tf.models import inputs
from haim_tf.programs import Programs
from haim_tf.sampling import in_parts, seed_pairs, walk

if TYPE_CHECKING:
    from haim_tf.class_names import Labels
    from haim_tf.layers.types import Tensor
    from haim_tf.models import HierarchicalModel
    from haim_tf.networks import AutoregressiveNetwork

# How often the guide is renewed, at the cost of a draw of the top codes each.
_ROUNDS = 3
# What the guide grants to codes that the encoder never gave, in counts, shared by all of them.
_PSEUDOCOUNT = 0.5
_IMPOSSIBLE = -1e9
# Sets the random numbers of the parts apart: `_GUIDE + round`, `_FINAL + network`.
_LABEL, _CHOICE, _GUIDE, _FINAL = 0, 1, 100, 200


def complete(
    model: HierarchicalModel,
    images: np.ndarray,
    mask: np.ndarray | None = None,
    rows: int | None = None,
    labels: Labels | None = None,
    seed: int | np.ndarray = 0,
    candidates: int = 16,
    num: int | None = None,
    batch_size: int = 64,
    verbose: bool | None = None,
    return_codes: bool = False,
) -> np.ndarray | tuple[np.ndarray, list[np.ndarray]]:
    """Completes images: keeps the known pixels bit for bit and draws the others.

    Args:
        model: a `HierarchicalModel`; all others, and what is returned, as for its method `complete`.

    Raises:
        ValueError: images, mask, labels or numbers that do not fit.

    Example:
        >>> model = haim_tf.load("debug")
        >>> images = model.sample(2, labels=3)
        >>> completed = complete(model, images, rows=8, labels=3, candidates=2)
        >>> bool((completed[:, :8] == images[:, :8]).all())
        True

    NOTE: the paper has no completion; weighing candidates is sampling-importance-resampling (Rubin 1987).
    """
    inputs.check_codes_have_auxiliary(model, "completion")
    images = inputs.check_images(images, model.image_shape)
    mask = _check_mask(mask, rows, images.shape)
    if labels is not None or not model.num_classes:
        labels = inputs.check_labels(labels, model.num_classes, len(images), model.class_names)
    candidates, batch_size = require_positive_integers(candidates=candidates, batch_size=batch_size)
    num = require_int("num", num, low=1, optional=True)
    if not len(images):
        seed_pairs(seed, 0)
        several = () if num is None else (num,)
        grids = [np.zeros((0, *several, *shape), "int32") for shape in model.grid_shapes[1:]]
        pixels = np.zeros((0, *several, *model.image_shape), "uint8")
        return (pixels, grids) if return_codes else pixels
    drawn = _Candidates(model, images, mask, labels, seed_pairs(seed, len(images)), num or 1, candidates)
    drawn.bar = _bar(drawn, batch_size, verbose)
    drawn.batch_size = batch_size
    grids = drawn.choose(*drawn.draw())
    # The grid's pixels are the known ones already; taken from the images, they are so beyond doubt.
    pixels = grids[0].astype("uint8").reshape(len(images), num or 1, *model.image_shape)
    pixels = np.where(mask[:, None, :, :, None], images[:, None], pixels)
    codes = [x.reshape(len(images), num or 1, *x.shape[1:]) for x in grids[1:]]
    if num is None:
        pixels, codes = pixels[:, 0], [x[:, 0] for x in codes]
    return (pixels, codes) if return_codes else pixels


def known_codes(model: HierarchicalModel, mask: np.ndarray) -> list[np.ndarray]:
    """Which codes have a field of view of known pixels only.

    Args:
        mask: bool `(B, H, W)`, true where a pixel is known.

    Returns:
        A list of bool arrays `(B, h_l, w_l)`, finest level first.
    """
    unknown, result = np.float32(~mask)[..., None], []
    for autoencoder in model.autoencoders:
        encoder = autoencoder.encoder
        convs = [*encoder.downsampling_convs, *(b.spatial_conv for b in encoder.stack.residual_blocks)]
        for conv in convs:
            # A maximum over what the convolution sees, padded alike.
            unknown = ops.max_pool(unknown, conv.kernel_size, conv.strides, padding="same")
        result.append(ops.convert_to_numpy(unknown)[..., 0] == 0)
    return result


def draw_given(
    network: AutoregressiveNetwork,
    noise: Tensor,
    guide: Tensor | None = None,
    known: Tensor | None = None,
    mask: Tensor | None = None,
    codes: Tensor | None = None,
    labels: Tensor | None = None,
    rows: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draws grids as `sampling.sample_grid` does, some elements forced and some guided.

    Args:
        network: an `AutoregressiveNetwork`.
        noise: float32 `(B, H, W, noise_size)`, uniform in [0, 1).
        guide: float32 `(B, H, W, K)`, added to the logits of each element; grids of codes only.
        known, mask: the grid's values, int `(B, H, W[, C])`, and where they are forced, bool `(B, H, W)`.
        codes, labels: what the network is conditioned on.
        rows: how many rows to draw, an int tensor; `None`: all.

    Returns:
        The grids, int32, and the log of their importance weights `(B,)`: that of the forced elements'
        probability, and for the guided ones of the ratio of the network's to the guided probability.
    """
    batch_size, height, width, _ = noise.shape
    head = network.likelihood

    def at(grid, row, column):
        rest = grid.shape[3:]
        grid = ops.slice(grid, (0, row, column, *(0 for _ in rest)), (batch_size, 1, 1, *rest))
        return grid[:, 0, 0]

    def decide(params, row, column, weight):
        proposal = params if guide is None else params + at(guide, row, column)
        x = head.sample(proposal, at(noise, row, column))
        if mask is not None:
            forced = at(mask, row, column)
            x = ops.where(forced[:, None] if head.element_shape else forced, at(known, row, column), x)
            weight = weight + ops.where(forced, head.log_prob(params, x), 0.0)
        if guide is not None:
            weight = weight + head.log_prob(params, x) - head.log_prob(proposal, x)
        return x, weight

    weight = ops.zeros((batch_size,), "float32")
    return walk(network, batch_size, (height, width), decide, weight, rows=rows, codes=codes, labels=labels)


class _Candidates:
    """All candidates of all completions, arrays `(B * num * candidates, ...)`, a completion's together."""

    def __init__(self, model, images, mask, labels, seeds, num, candidates):
        self.model, self.images, self.mask, self.candidates = model, images, mask, candidates
        self.owner = np.repeat(np.arange(len(images)), num * candidates)
        self.keys = [
            [*pair.astype("uint32").tolist(), completion, candidate]
            for pair in seeds
            for completion in range(num)
            for candidate in range(candidates)
        ]
        self.labels = None
        if model.num_classes and labels is not None:
            self.labels = labels[self.owner]
        elif model.num_classes:
            draws = [np.random.default_rng([*key, _LABEL]).integers(model.num_classes) for key in self.keys]
            self.labels = np.array(draws, "int32").reshape(len(self.keys))
        self.forced = known_codes(model, mask)
        self.grids = [ops.convert_to_numpy(model.elements(images)), *model.encode(images)]

    @property
    def passes(self):
        """How many grids are drawn for each candidate."""
        guided = self.candidates > 1 and self.model.num_levels
        return self.model.num_levels + 1 + (_ROUNDS if guided else 0)

    def draw(self):
        """The grids `[x_0, ..., x_L]` of every candidate and the logs of their weights."""
        top = self.model.num_levels
        guides = self._guides(None)
        if self.candidates > 1 and top:
            for i in range(_ROUNDS):
                codes, _ = self._draw(top, _GUIDE + i, guides[-1])
                guides = self._guides(self._encode(codes))
        grids, weights = [], 0.0
        for index in range(top, -1, -1):
            below = grids[0] if grids else None
            grid, weight = self._draw(index, _FINAL + index, guides[index - 1] if index else None, below)
            grids, weights = [grid, *grids], weights + weight
        return grids, weights

    def choose(self, grids, weights):
        """The grids of one candidate a completion, drawn in proportion to the weights."""
        weights = weights.reshape(-1, self.candidates).astype("float64")
        shares = np.exp(weights - weights.max(axis=1, keepdims=True))
        cdf = np.cumsum(shares, axis=1)
        first = self.keys[:: self.candidates]
        uniforms = np.array([np.random.default_rng([*key, _CHOICE]).random() for key in first])
        chosen = (cdf <= uniforms[:, None] * cdf[:, -1:]).sum(axis=1)
        rows = np.arange(len(first)) * self.candidates + chosen
        return [grid[rows] for grid in grids]

    def _encode(self, codes):
        """Every level's codes of the images, unknown pixels painted from top codes by auxiliary decoders."""
        model = self.model
        painted = model._run("_auxiliary", codes, model.num_levels)
        known = self.mask[self.owner][..., None]
        return model.encode(np.where(known, self.images[self.owner], painted))

    def _guides(self, codes):
        """Logs of how likely each code is, float32 `(completions, h, w, K)` a level.

        Where a code's field of view is known, certainty; where its cell is, how often it occurs in `codes`;
        elsewhere 0, no guide.
        """
        guides = []
        completions = len(self.keys) // self.candidates
        owner = self.owner[:: self.candidates]
        for level, forced in enumerate(self.forced):
            K, (h, w) = self.model.codebook_sizes[level], self.model.grid_shapes[level + 1]
            guide = np.zeros((completions, h, w, K), "float32")
            if codes is not None:
                counts = np.full(guide.shape, _PSEUDOCOUNT / K, "float32")
                grids = codes[level].reshape(completions, self.candidates, h, w)
                for candidate in range(self.candidates):
                    grid = grids[:, candidate, ..., None]
                    np.put_along_axis(counts, grid, np.take_along_axis(counts, grid, axis=-1) + 1, axis=-1)
                cells = self.mask.reshape(len(self.mask), h, self.mask.shape[1] // h, w, -1).all(axis=(2, 4))
                guide = np.where(cells[owner][..., None], np.log(counts), guide)
            certain = np.where(np.arange(K) == self.grids[level + 1][..., None], 0.0, _IMPOSSIBLE)
            guides.append(np.where(forced[owner][..., None], certain[owner], guide).astype("float32"))
        return guides

    def _draw(self, index, stream, guide=None, codes=None):
        """`draw_given` of one network for every candidate, batch by batch."""
        model, network = self.model, self.model.networks[index]
        if ("complete", index) not in model._programs:
            draw = functools.partial(draw_given, network)
            model._programs["complete", index] = Programs(draw, network, "completion")
        program = model._programs["complete", index]
        all_rows = ops.convert_to_tensor(model.grid_shapes[index][0], "int32")
        shape = (*model.grid_shapes[index], network.likelihood.noise_size)
        count = len(self.keys)
        size = min(count, self.batch_size)
        results = []
        for start in range(0, count, size):
            # The last batch repeats its last candidate, so that one compiled program serves all batches.
            batch = np.minimum(np.arange(start, start + size), count - 1)

            def run(part, batch=batch):
                rows = batch[part]
                noise = [
                    np.random.default_rng([*self.keys[i], stream]).random(shape, "float32") for i in rows
                ]
                arrays = [
                    np.stack(noise),
                    None if guide is None else guide[rows // self.candidates],
                    None if index else self.grids[0][self.owner[rows]],
                    None if index else self.mask[self.owner[rows]],
                    None if codes is None else codes[rows],
                    self.labels[rows] if network.num_classes else None,
                ]
                return program(*(None if a is None else ops.convert_to_tensor(a) for a in arrays), all_rows)

            results.append(in_parts(size, run, model.grid_shapes[index]))
            self.bar.add(1)
        return [np.concatenate(parts)[:count] for parts in zip(*results, strict=True)]


def _bar(drawn, batch_size, verbose):
    batches = -(-len(drawn.keys) // batch_size)
    show = verbose or (verbose is None and batches > 1)
    return progress.Bar(batches * drawn.passes, "network passes", show=show)


def _check_mask(mask, rows, shape):
    """The mask as bools `(B, H, W)`; a ValueError where it or `rows` is not as `complete` says."""
    if (mask is None) == (rows is None):
        raise ValueError(f"give either mask or rows, got mask={mask!r} and rows={rows!r}")
    count, height, width = shape[:3]
    if rows is not None:
        rows = require_int("rows", rows, low=0, high=height)
        mask = np.repeat(np.arange(height)[:, None] < rows, width, axis=1)
    mask = np.asarray(mask)
    if mask.dtype != bool or mask.shape not in ((height, width), (count, height, width)):
        raise ValueError(
            f"mask must be bool of shape ({height}, {width}) or ({count}, {height}, {width}), "
            f"got {mask.dtype} of shape {mask.shape}"
        )
    return np.broadcast_to(mask, (count, height, width))
