"""The types in the signatures of layers."""

from typing import Any

# Of any backend, or an array that Keras makes one of.
Tensor = Any
# What an incremental form passes from step to step.
Cache = dict[str, Tensor]
# `(B, H, W, C)` as Keras hands it to `build`; a side may be unknown.
Shape = tuple[int | None, ...]
