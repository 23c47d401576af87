"""Sampling: the walk over a grid in raster order, and the compiled, seeded sampler of a network."""

from haim_tf.sampling.raster import HostWalk, walk
from haim_tf.sampling.sampler import Sampler, at_most, draw_noise, in_parts, sample_grid, seed_pairs

__all__ = ["HostWalk", "Sampler", "at_most", "draw_noise", "in_parts", "sample_grid", "seed_pairs", "walk"]
