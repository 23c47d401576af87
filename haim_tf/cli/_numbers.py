"""Numbers as the command line takes them: one, or one per level and one for the prior."""

from collections.abc import Sequence


def parse_numbers(flag: str, texts: Sequence[str] | None) -> list[float] | None:
    """One float, or a list of several, for what a list flag says; `None` where it says nothing.

    Raises:
        ValueError: a text that is no number.
    """
    if not texts:
        return None
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        raise ValueError(f"--{flag} must be numbers, got {','.join(texts)!r}") from None
    return numbers[0] if len(numbers) == 1 else numbers
