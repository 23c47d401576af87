"""Networks: encoders, auxiliary decoders, and the autoregressive networks of main decoders and priors."""

from haim_tf.networks.autoregressive import NETWORKS, AutoregressiveNetwork
from haim_tf.networks.auxiliary import AUXILIARY_DECODERS, AuxiliaryDecoder
from haim_tf.networks.encoder import Encoder
from haim_tf.networks.feed_forward import FeedForwardDecoder
from haim_tf.networks.masked_self_prediction import MaskedSelfPredictionDecoder
from haim_tf.networks.pixel_cnn import PixelCNN
from haim_tf.networks.teacher import MaskedSelfPredictionTeacher

__all__ = [
    "AUXILIARY_DECODERS",
    "NETWORKS",
    "AutoregressiveNetwork",
    "AuxiliaryDecoder",
    "Encoder",
    "FeedForwardDecoder",
    "MaskedSelfPredictionDecoder",
    "MaskedSelfPredictionTeacher",
    "PixelCNN",
]
