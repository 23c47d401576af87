"""Labels as the command line takes them: numbers and names of classes."""

from collections.abc import Sequence

from haim_tf.class_names import find_class

# Flags are split at commas, which names may hold.
COMMA = ", "


def choose_labels(
    labels: Sequence[str] | None,
    num_classes: int | None,
    class_names: Sequence[str] | None,
    flag: str = "labels",
) -> list[int] | None:
    """The labels to take in turn, ints, for what `--labels` (or another flag) says; `None` for an
    unconditional model.

    Raises:
        ValueError: labels for an unconditional model, or a name or number that is no class.
    """
    if num_classes is None:
        if labels:
            raise ValueError(f"this model is not class-conditional: leave out --{flag}")
        return None
    if not labels or labels == ["all"]:
        return list(range(num_classes))
    chosen, before = [], None
    for text in _joined([text.strip() for text in labels], class_names or ()):
        named = not text.isdecimal() or text in (class_names or ())
        try:
            label = find_class(text, class_names) if named else int(text)
        except ValueError as error:
            raise ValueError(f"--{flag}: {error} (or a number in 0..{num_classes - 1})") from None
        if label >= num_classes:
            raise ValueError(f"--{flag} must be among 0..{num_classes - 1}, got {text!r}")
        # Parts of one name count once.
        if not (named and before is not None and before != text and chosen[-1] == label):
            chosen.append(label)
        before = text if named else None
    return chosen


def _joined(parts, class_names):
    """The parts, those that together are the name of a class as one: the longest name from each place on."""
    names = {COMMA.join(map(str.strip, name.split(","))): name for name in class_names}
    longest, texts, start = max((name.count(",") + 1 for name in names), default=1), [], 0
    while start < len(parts):
        ends = range(min(start + longest, len(parts)), start + 1, -1)
        end = next((end for end in ends if COMMA.join(parts[start:end]) in names), start + 1)
        whole = COMMA.join(parts[start:end])
        texts.append(names.get(whole, whole))
        start = end
    return texts
