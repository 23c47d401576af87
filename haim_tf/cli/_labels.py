"""Labels as the command line takes them: numbers and names of classes."""


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
    names = {name.lower(): i for i, name in enumerate(class_names or [])}
    return [_label(text.strip(), num_classes, names) for text in labels]


def _label(text, num_classes, names):
    label = names.get(text.lower(), int(text) if text.isdecimal() else None)
    if label is None or label >= num_classes:
        known = f", or {', '.join(names)}" if names else ""
        raise ValueError(f"--labels must be among 0..{num_classes - 1}{known}, got {text!r}")
    return label
