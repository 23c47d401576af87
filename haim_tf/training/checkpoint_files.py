"""The `.npz` files of a training run: what they may hold, and how a model's variables are named in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from haim_tf.checks import require_int, require_number

if TYPE_CHECKING:
    import keras

    from haim_tf.models import HierarchicalModel

OPTIMIZER = "optimizer"  # How its variables' names begin.


def read(path: Path, check: Callable[[dict[str, Any]], None]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a file by name, and what it says of itself, a dict that `check` finds nothing wrong with.

    Raises:
        ValueError: it is damaged.
    """
    try:
        with np.load(path) as saved:
            state = {name: saved[name] for name in saved.files}
        meta = json.loads(str(state.pop("meta")))
        check(meta)
        return state, meta
    except Exception as error:  # A zip file cut short or overwritten fails in many ways.
        raise ValueError(f"{path} is damaged ({error}): remove it to start the run anew") from None


def check_position(meta: dict[str, Any]) -> None:
    """Some error where a checkpoint's position, log and configuration are something else."""
    for key in ("stage", "step"):
        require_int(key, meta["position"][key], low=0)
    for row in meta["rows"]:
        require_int("stage", row["stage"], low=0)
        require_number("seconds", row["seconds"])
    if not isinstance(meta.get("model"), (dict, type(None))):
        raise ValueError(f"model must be a dict, got {meta['model']!r}")


def check_best(meta: dict[str, Any]) -> None:
    """The same of the best weights' position and score."""
    for key in ("stage", "step"):
        require_int(key, meta[key], low=0)
    require_number("score", meta["score"])


def variables_of(model: HierarchicalModel) -> dict[str, keras.Variable]:
    """Everything that a checkpoint holds, by names that hold from one process to the next."""
    variables = {f"model{i}": v for i, v in enumerate(model.variables)}
    if getattr(model, "optimizer", None) is not None:
        variables.update({f"{OPTIMIZER}{i}": v for i, v in enumerate(model.optimizer.variables)})
    return variables


def assign(state: dict[str, np.ndarray], model: HierarchicalModel, path: Path, fresh: bool) -> None:
    """Puts a checkpoint's arrays into a model, and into its optimizer unless that is to stay `fresh`.

    Raises:
        ValueError: they are of another model; it names the file, `path`.
    """
    variables = variables_of(model)
    # Under mixed_float16 an optimizer has a few variables more, in front, of how it scales losses: a run
    # may have begun with them and be gone on with without, or the other way round.
    more = _num_of_optimizer(state) - _num_of_optimizer(variables)
    for name, variable in variables.items():
        if name.startswith(OPTIMIZER):
            number = int(name.removeprefix(OPTIMIZER)) + more
            if number < 0 or fresh:
                continue
            name = f"{OPTIMIZER}{number}"
        if name not in state or state[name].shape != tuple(variable.shape):
            raise ValueError(f"{path} does not fit the model at {variable.path}")
        variable.assign(state[name])


def _num_of_optimizer(names):
    return sum(name.startswith(OPTIMIZER) for name in names)
