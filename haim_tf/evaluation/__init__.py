"""Evaluation: of a model on held-out images, and of samples against real images."""

from haim_tf.evaluation.classification import (
    accuracy,
    classification_accuracy_score,
    small_classifier,
    standard_error,
    train_classifier,
)
from haim_tf.evaluation.distances import frechet_distance, precision_and_recall
from haim_tf.evaluation.features import extract_features, feature_layer, inception_features
from haim_tf.evaluation.judge import Judge, draw_samples
from haim_tf.evaluation.publish import publish_preset
from haim_tf.evaluation.report import (
    check_weights,
    choose_images,
    code_statistics,
    evaluate,
    evaluate_and_score,
)
from haim_tf.evaluation.sampling_defaults import choose_sampling
from haim_tf.evaluation.scores import label_log_probs, label_posterior, marginal_log_probs

__all__ = [
    "Judge",
    "accuracy",
    "check_weights",
    "choose_images",
    "choose_sampling",
    "classification_accuracy_score",
    "code_statistics",
    "draw_samples",
    "evaluate",
    "evaluate_and_score",
    "extract_features",
    "feature_layer",
    "frechet_distance",
    "inception_features",
    "label_log_probs",
    "label_posterior",
    "marginal_log_probs",
    "precision_and_recall",
    "publish_preset",
    "small_classifier",
    "standard_error",
    "train_classifier",
]
