"""Networks: encoders, auxiliary decoders, and the PixelCNN of main decoders and priors."""

from haim_tf.networks.auxiliary import FeedForwardDecoder
from haim_tf.networks.encoder import Encoder
from haim_tf.networks.masked_self_prediction import MaskedSelfPredictionDecoder
from haim_tf.networks.pixel_cnn import PixelCNN
from haim_tf.networks.teacher import MaskedSelfPredictionTeacher

__all__ = [
    "Encoder",
    "FeedForwardDecoder",
    "MaskedSelfPredictionDecoder",
    "MaskedSelfPredictionTeacher",
    "PixelCNN",
]
