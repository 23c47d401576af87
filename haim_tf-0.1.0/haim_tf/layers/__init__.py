"""Building blocks: quantization, causal layers with incremental forms, residual stacks."""

from haim_tf.layers.causal_attention import CausalAttention2D
from haim_tf.layers.gated_block import GatedResidualBlock
from haim_tf.layers.masked_conv import MaskedConv2D
from haim_tf.layers.residual import ResidualBlock, ResidualStack
from haim_tf.layers.vector_quantizer import VectorQuantizer

__all__ = [
    "CausalAttention2D",
    "GatedResidualBlock",
    "MaskedConv2D",
    "ResidualBlock",
    "ResidualStack",
    "VectorQuantizer",
]
