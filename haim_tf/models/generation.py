"""What a hierarchy makes: samples, images of given codes, reconstructions, completions, distributions."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from haim_tf import progress
from haim_tf.backend import require_tensorflow
from haim_tf.checks import check_sampling, require_int, require_positive_integers
from haim_tf.class_names import Labels
from haim_tf.models import inputs
from haim_tf.sampling import Sampler, seed_pairs

if TYPE_CHECKING:
    from haim_tf.distribution import ImageDistribution, PriorDistribution

# Seed pairs number the samples in 32 bits.
MAX_NUM = 2**31 - 1


class Generation:
    """Mixin that gives `HierarchicalModel` its `sample`, `decode`, `reconstruct` and what builds on them."""

    def sample(
        self,
        num: int,
        labels: Labels | None = None,
        seed: int | np.ndarray = 0,
        temperature: float | Sequence[float] | None = None,
        top_p: float | Sequence[float] | None = None,
        batch_size: int = 64,
        verbose: bool | None = None,
        guidance: float | None = None,
    ) -> np.ndarray:
        """Samples images: top codes from the prior, then down through the main decoders.

        Args:
            num: number of images.
            labels: one int or name of a class (any of its parts: "goldfish"), or `num` of them; `None` draws
                each label from the example's seed (class-conditional models only).
            seed: an int, or an int array `(num, 2)` of seed pairs; example i of seed s has the pair (s, i).
                Weights, label, seed pair, temperature, top_p and guidance determine a sample.
            temperature: 1 samples the model's distribution, lower ones sharpen it; one value, or one per
                level (finest first) and one for the prior. `None`: the model's own `sampling_defaults`.
            top_p: mass of the nucleus to sample from, in (0, 1]; one value or several, or `None`, as above.
            batch_size: how many images are sampled at once.
            verbose: whether to show a progress bar; `None`: when there is more than one batch.
            guidance: how far networks are moved towards the label (classifier-free guidance, Ho and Salimans
                2022): 1 samples the model's distribution, more sharpens what belongs to the label, 0 leaves
                the label out. `None`: the model's own. Only where the prior, or a main decoder over codes,
                was trained with labels left out (`label_dropout`); these then run twice.

        Returns:
            uint8 `(num, H, W, C)`.

        Raises:
            ValueError: an argument that is not as stated.

        Example:
            >>> model = haim_tf.load("debug")
            >>> model.sample(4, labels="three", seed=0).shape
            (4, 16, 16, 3)
        """
        num = require_int("num", num, low=1, high=MAX_NUM)
        seeds = seed_pairs(seed, num)
        if labels is None and self.num_classes:
            labels = self.draw_labels(num, seeds)
        labels = inputs.check_labels(labels, self.num_classes, num, self.class_names)
        sampling = self._sampling_of(temperature=temperature, top_p=top_p, guidance=guidance)
        return self._sample_below(None, labels, seeds, sampling, batch_size, verbose)

    def draw_labels(self, num: int, seed: int | np.ndarray = 0) -> np.ndarray:
        """The labels that `sample` draws where none are given, int32 `(num,)`, each from its example's seed.

        Args:
            num, seed: as for `sample`.

        Raises:
            ValueError: the model takes no labels.

        Example:
            >>> model = haim_tf.load("debug")
            >>> model.draw_labels(4, seed=0).shape
            (4,)
        """
        if not self.num_classes:
            raise ValueError("this model takes no labels: there are none to draw")
        num = require_int("num", num, low=1, high=MAX_NUM)
        seeds = seed_pairs(seed, num).astype("uint32")
        return np.array([np.random.default_rng(s).integers(self.num_classes) for s in seeds], "int32")

    def decode(
        self,
        codes: np.ndarray,
        level: int | None = None,
        seed: int | np.ndarray = 0,
        temperature: float | Sequence[float] | None = None,
        top_p: float | Sequence[float] | None = None,
        batch_size: int = 64,
        verbose: bool | None = None,
        labels: Labels | None = None,
        guidance: float | None = None,
    ) -> np.ndarray:
        """Samples everything below level `level` (the top one where `None`): images for its codes.

        Args:
            codes: int `(B, h_l, w_l)` in 0..K_l-1.
            level: 1..L.
            seed, temperature, top_p, batch_size, verbose: as for `sample`.
            labels: the images', as for `log_prob`; only main decoders that are told labels heed them.
                `None`: none, which such decoders must have been trained for (`label_dropout`).
            guidance: as for `sample`, where labels are given.

        Returns:
            uint8 `(B, H, W, C)`.

        Raises:
            ValueError: codes, level, labels or numbers that do not fit the model.

        Example:
            >>> model = haim_tf.load("debug")
            >>> model.decode(np.zeros((2, 4, 4), "int32"), level=2, seed=0).shape
            (2, 16, 16, 3)
        """
        level = inputs.check_level(self.num_levels if level is None else level, self.num_levels)
        codes = inputs.check_codes(codes, self.grid_shapes[level], self.codebook_sizes[level - 1])
        seeds = seed_pairs(seed, len(codes))
        sampling = self._sampling_of(temperature=temperature, top_p=top_p, guidance=guidance)
        told = self.decodes_by_label(level)
        if labels is None:
            if guidance not in (None, 1):
                raise ValueError(f"guidance must be 1 without labels, got {guidance!r}")
            sampling["guidance"] = 1.0
        if labels is not None or told:
            labels = self._labels_or_none(labels, len(codes), self.decoders[:level])
        return self._sample_below((level, codes), labels, seeds, sampling, batch_size, verbose)

    def reconstruct(
        self,
        images: np.ndarray,
        level: int = 1,
        decoder: Literal["main", "auxiliary"] = "main",
        seed: int | np.ndarray = 0,
        **sampling: Any,
    ) -> np.ndarray:
        """Images drawn from, or best fitting, the codes of images at one level.

        Args:
            images: uint8, or float in 0..255, `(B, H, W, C)`.
            level: whose codes are kept, 1..L.
            decoder: `"main"` samples everything below from the main decoders; `"auxiliary"` goes down
                through the auxiliary decoders, which shows what the codes hold.
            seed: as for `sample`.
            **sampling: further arguments of `decode`.

        Returns:
            uint8 `(B, H, W, C)`.

        Raises:
            ValueError: images, level, decoder or numbers that do not fit; codes without auxiliary decoders.

        Example:
            >>> model = haim_tf.load("debug")
            >>> images = np.zeros((2, 16, 16, 3), "uint8")
            >>> model.reconstruct(images, level=2, decoder="auxiliary").shape
            (2, 16, 16, 3)
        """
        level = inputs.check_level(level, self.num_levels)
        if decoder not in ("main", "auxiliary"):
            raise ValueError(f'decoder must be "main" or "auxiliary", got {decoder!r}')
        if decoder == "auxiliary" and (unknown := sorted(set(sampling) - {"batch_size", "verbose"})):
            raise ValueError(f"auxiliary decoders do not sample: they take no {', '.join(unknown)}")
        codes = self.encode(images)[level - 1]
        if decoder == "auxiliary":
            return self._run("_auxiliary", codes, level)
        return self.decode(codes, level=level, seed=seed, **sampling)

    def sampler(self, index: int) -> Sampler:
        """The compiled `Sampler` of network `index` (0 the finest decoder, `num_levels` the prior).

        Example:
            >>> model = haim_tf.load("debug")
            >>> model.sampler(0) is model.sampler(0)  # Made once.
            True
        """
        if ("sampler", index) not in self._programs:
            self._programs["sampler", index] = Sampler(
                self.networks[index], self.grid_shapes[index], stream=index
            )
        return self._programs["sampler", index]

    def compile_sampler(self, batch_size: int = 64) -> None:
        """Builds what sampling batches of a size needs ahead of its first use, for all networks.

        Args:
            batch_size: as for `sample`; numbers that are sampled in parts of one size share their programs.

        Raises:
            ValueError: `batch_size` is no integer of at least 1.

        Example:
            >>> haim_tf.load("debug").compile_sampler(batch_size=1)
        """
        require_positive_integers(batch_size=batch_size)
        guided = self.sampling_defaults["guidance"] != 1.0
        self._compile(range(self.num_levels + 1), batch_size, guided)

    def _compile(self, indices, batch_size, guided):
        """Builds the programs of some networks' samplers, at once where they are not there yet."""

        def build(index):
            self.sampler(index).compile(batch_size, guided and self.networks[index].takes_guidance)

        with concurrent.futures.ThreadPoolExecutor(len(indices)) as pool:
            list(pool.map(build, indices))

    def _sampling_of(self, **asked):
        """What is asked for, as `check_sampling` gives it, and else the model's own defaults."""
        given = {name: value for name, value in asked.items() if value is not None}
        return check_sampling({**self.sampling_defaults, **given}, len(self.networks), self.takes_guidance)

    def _sample_below(self, known, labels, seeds, sampling, batch_size, verbose):
        """Samples the prior (where no `(level, codes)` is known) and every level below, batch by batch;
        `labels` may be `None` where no network is told any."""
        require_positive_integers(batch_size=batch_size)
        guidance = sampling["guidance"] if sampling["guidance"] != 1.0 else None
        top = self.num_levels if known is None else known[0] - 1
        num = len(seeds)
        if not num:
            return np.zeros((0, *self.image_shape), "uint8")
        size = min(num, batch_size)
        self._compile(range(top + 1), size, guidance is not None)
        batches = -(-num // size)
        show = verbose or (verbose is None and batches > 1)
        bar = progress.Bar(batches * (top + 1), "network passes", show=show)
        images = []
        for start in range(0, num, size):
            # The last batch repeats its last example, so that one compiled program serves all batches.
            rows = np.minimum(np.arange(start, start + size), num - 1)
            grid = None if known is None else known[1][rows]
            for index in range(top, -1, -1):
                grid, _ = self.sampler(index)(
                    seeds[rows],
                    sampling["temperature"][index],
                    sampling["top_p"][index],
                    **self.conditioning(index, grid, None if labels is None else labels[rows]),
                    guidance=guidance if self.networks[index].takes_guidance else None,
                )
                bar.add(1)
            images.append(grid.astype("uint8"))
        return np.concatenate(images)[:num].reshape(num, *self.image_shape)

    # Put to use: each in a module of its own, which stands above models ------------------------------------

    def complete(
        self,
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
        """Completes images: keeps the known pixels bit for bit and draws the others, by the plain model.

        Args:
            images: uint8, or float in 0..255, `(B, H, W, C)`; what stands in unknown pixels plays no part.
            mask: bool `(H, W)` or `(B, H, W)`, true where a pixel is known.
            rows: an int instead of `mask`: the first `rows` rows are known.
            labels: one int or name of a class, or `(B,)` of them; `None`: drawn for each candidate, so that
                the weights choose among labels as well (class-conditional models).
            seed: an int, or an int array `(B, 2)` of seed pairs, as for `sample`.
            candidates: how many candidates each completion is chosen from, by how well they explain the known
                pixels; 1: nothing is weighed, codes are drawn blindly except those whose field of view is
                known.
            num: completions of each image, each with candidates of its own; `None`: one.
            batch_size: how many candidates are drawn at once.
            verbose: whether to show a progress bar; `None`: when there is more than one batch.
            return_codes: also return the codes that the completions were drawn from.

        Returns:
            uint8 `(B, H, W, C)`, or `(B, num, H, W, C)`; with `return_codes` also a list `[x_1, ..., x_L]` of
            int32 `(B[, num], h_l, w_l)`.

        Raises:
            ValueError: images, mask, labels or numbers that do not fit.

        Example:
            >>> model = haim_tf.load("debug")
            >>> images = np.zeros((2, 16, 16, 3), "uint8")
            >>> model.complete(images, rows=8, labels=3, candidates=2).shape  # The upper half is known.
            (2, 16, 16, 3)
        """
        from haim_tf import completion

        return completion.complete(
            self, images, mask, rows, labels, seed, candidates, num, batch_size, verbose, return_codes
        )

    def as_distribution(
        self, labels: Labels | None = None, temperature: float | Sequence[float] = 1.0
    ) -> ImageDistribution:
        """A `tfp.distributions.Distribution` of images; see `haim_tf.distribution.ImageDistribution`.

        Raises:
            ValueError: another backend than TensorFlow; labels or temperature that do not fit the model.

        Example:
            >>> haim_tf.load("debug").as_distribution(labels=[3, 7]).batch_shape
            TensorShape([2])
        """
        require_tensorflow("the TensorFlow Probability view")
        from haim_tf.distribution import ImageDistribution

        return ImageDistribution(self, labels, temperature)

    def prior_distribution(
        self, labels: Labels | None = None, temperature: float | Sequence[float] = 1.0
    ) -> PriorDistribution:
        """That of the top codes, with an exact `log_prob`; see `haim_tf.distribution.PriorDistribution`.

        Raises:
            ValueError: another backend than TensorFlow; labels or temperature that do not fit the model.

        Example:
            >>> haim_tf.load("debug").prior_distribution(labels=3).event_shape
            TensorShape([4, 4])
        """
        require_tensorflow("the TensorFlow Probability view")
        from haim_tf.distribution import PriorDistribution

        return PriorDistribution(self, labels, temperature)
