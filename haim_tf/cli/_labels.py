"""Labels as the command line takes them: numbers and names of classes."""

from haim_tf.class_names import find_class


def choose_labels(labels, num_classes, class_names):
    """The labels to take in turn, ints, for what `--labels` says; `None` for an unconditional model.

    Raises:
        ValueError: labels for an unconditional model, or a name or number that is no class.
    """
    if num_classes is None:
        if labels:
            raise ValueError("this model is not class-conditional: leave out --labels")
        return None
    if not labels or labels == ["all"]:
        return list(range(num_classes))
    chosen = []
    for text in (text.strip() for text in labels):
        try:
            label = int(text) if text.isdecimal() else find_class(text, class_names)
        except ValueError as error:
            raise ValueError(f"--labels: {error} (or a number in 0..{num_classes - 1})") from None
        if label >= num_classes:
            raise ValueError(f"--labels: {text!r} must be a number in 0..{num_classes - 1}")
        # Flags are split at commas, which names may hold: the parts of one name count once.
        if not (chosen and chosen[-1] == label and not text.isdecimal()):
            chosen.append(label)
    return chosen
