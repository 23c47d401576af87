"""The folder of a training run: its recipe, its one checkpoint, its log, its pictures."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from haim_tf import files
from haim_tf.data import save_grid
from haim_tf.files import absolute, read_json, write_arrays, write_file, write_json
from haim_tf.training.checkpoint_files import assign, check_best, check_position, read, variables_of
from haim_tf.training.recipe import DEFAULTS, Recipe
from haim_tf.training.tensorboard import TensorBoard

if TYPE_CHECKING:
    from haim_tf.models import HierarchicalModel

LOCK = "lock"
# What `write_file` and `save_to_preset` leave of a run's files where the process is killed.
_UNFINISHED = re.compile(
    r"\.(recipe\.json|data\.json|[a-z]+\.npz|metrics\.csv|\w+\.png)\.[\w-]+"
    r"|\.preset\.\w+(\.replaced)?"
)


class RunFolder:
    """What a training run writes, and how an interrupted run is found again.

    Every file is written beside its name and then renamed, so that killing the run at any moment leaves the
    last whole state: `recipe.json`; `data.json`; `checkpoint.npz` (model and its configuration, optimizer
    with its weight averages, random state, position and log rows); `best.npz` (the model at its best in a
    stage with patience); `metrics.csv`; PNG sheets; `tensorboard/` where TensorBoard is installed; `lock`,
    held until `close`, or the end of `with`.

    Args:
        folder: made where absent.
        recipe: JSON-able; a folder with the run of another recipe is refused.
        resume: whether a run found there may be gone on with.
        writes: False: only read it and keep pace, as workers do whose chief writes.
        data: what the run is trained on: `source`, `split` and `ImageData.fingerprint()`. A folder with a run
            on other images is refused; the same images may have moved.

    Attributes:
        position: a dict, `stage` (0-based) and `step`, that the checkpoint has reached.
        rows: of the log, dicts.
        model_arguments: the model's configuration at that point, or `None` before the first checkpoint.
        best: what `save_best` was last told, a dict, `stage`, `step` and `score`, or `None`.

    Raises:
        ValueError: the folder holds something else, may not be gone on with, or cannot be written, or another
            process trains in it.

    Example:
        >>> recipe = read_recipe("fashion_mnist28")
        >>> with RunFolder("runs/mine", recipe) as run:
        ...     print(run.position)
        {'stage': 0, 'step': 0}
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        recipe: Recipe,
        resume: bool = True,
        writes: bool = True,
        data: dict[str, Any] | None = None,
    ):
        self.folder = absolute(folder)
        self.recipe = recipe
        self.writes = writes
        self.position = {"stage": 0, "step": 0}
        self.rows = []
        self.model_arguments = None
        self.best = None
        self._state = None
        self._best_state = None
        self._tensorboard = TensorBoard(self.folder / "tensorboard")
        self._lock = None
        try:
            if writes:
                self._claim(json.loads(json.dumps(recipe)), resume, data)
            if (self.folder / "checkpoint.npz").exists():
                self.read_checkpoint()
                self._read_best()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Lets other trainings have the folder.

        Example:
            >>> run = RunFolder("runs/mine", {"stages": []})
            >>> run.close()
        """
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        self._tensorboard.close()

    def _take_lock(self):
        """Holds a lock on the folder, which the system takes back from a process that ends in any way.

        Raises:
            ValueError: another training holds it.
        """
        try:
            import fcntl
        except ImportError:  # Windows.
            return
        self._lock = open(self.folder / LOCK, "ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"the output must be a folder that no other training writes to, got {self.folder}, where one "
                "is running"
            ) from None
        except OSError:  # A file system without locks.
            pass

    def _claim(self, recipe, resume, data):
        recipe_file, data_file = self.folder / "recipe.json", self.folder / "data.json"
        unfinished = check_run_folder(self.folder)
        try:
            files.linked(self.folder).mkdir(parents=True, exist_ok=True)
            self._take_lock()
            for path in unfinished:
                if path.name.endswith(".replaced") and not (self.folder / "preset").exists():
                    path.rename(self.folder / "preset")
                else:
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except OSError as error:
            raise ValueError(f"cannot write {self.folder}: {error.strerror or error}") from error
        if recipe_file.exists():
            # A run of an older version knew fewer keys, which had what are the defaults now.
            known = {key: value for key, value in DEFAULTS.items() if key in recipe}
            written = read_json(recipe_file)
            if not isinstance(written, dict):
                raise ValueError(f"{recipe_file} is damaged, or of another program: name a new folder")
            if _comparable({**known, **written}) != _comparable(recipe):
                raise ValueError(f"{self.folder} holds the run of another recipe: name a new folder")
            before = read_json(data_file) if data_file.exists() else data
            if data and not isinstance(before, dict):
                raise ValueError(f"{data_file} is damaged, or of another program: name a new folder")
            changed = [key for key in data or () if key != "source" and before.get(key) != data[key]]
            if changed:
                raise ValueError(
                    f"{self.folder} holds a run on other data: {changed[0]} was {before.get(changed[0])!r} "
                    f"(of {before.get('source')}), got {data[changed[0]]!r} (of {data['source']}); name a "
                    "new folder"
                )
            if not resume:
                raise ValueError(f"{self.folder} holds a run already: name a new folder, or resume it")
        write_json(recipe_file, recipe)
        if data and not data_file.exists():
            write_json(data_file, data)

    def read_checkpoint(self) -> None:
        """Takes up what the checkpoint holds, which another process may have written.

        Raises:
            ValueError: it is damaged.

        Example:
            >>> model, recipe = haim_tf.load("debug"), {"stages": []}
            >>> with RunFolder("runs/mine", recipe) as run:
            ...     run.save(model, stage=0, step=100)
            ...     run.read_checkpoint()
            ...     run.position
            {'stage': 0, 'step': 100}
        """
        self._state, meta = read(self.folder / "checkpoint.npz", check_position)
        self.position, self.rows = meta["position"], meta["rows"]
        self.model_arguments = meta.get("model")

    def _read_best(self):
        if (self.folder / "best.npz").exists():
            self._best_state, self.best = read(self.folder / "best.npz", check_best)

    def save_best(self, model: HierarchicalModel, stage: int, step: int, score: float) -> None:
        """Keeps the model's weights as the best of a stage, with the figure that says so.

        Raises:
            ValueError: a file cannot be written, as where the disk is full.

        Example:
            >>> model, recipe = haim_tf.load("debug"), {"stages": []}
            >>> with RunFolder("runs/mine", recipe) as run:
            ...     run.save_best(model, stage=0, step=100, score=3.5)
            ...     run.best
            {'stage': 0, 'step': 100, 'score': 3.5}
        """
        self.best = {"stage": stage, "step": step, "score": score}
        self._best_state = {f"model{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(model.variables)}
        write_arrays(self.folder / "best.npz", {"meta": np.array(json.dumps(self.best)), **self._best_state})

    def restore_best(self, model: HierarchicalModel) -> None:
        """Puts the best weights of its stage into a model.

        Example:
            >>> model, recipe = haim_tf.load("debug"), {"stages": []}
            >>> with RunFolder("runs/mine", recipe) as run:
            ...     run.save_best(model, stage=0, step=100, score=3.5)
            ...     run.restore_best(model)
        """
        for i, variable in enumerate(model.variables):
            variable.assign(self._best_state[f"model{i}"])

    def save(
        self, model: HierarchicalModel, stage: int, step: int, row: dict[str, Any] | None = None
    ) -> None:
        """Writes the checkpoint of a position, with a row of the log where one is given, then the log.

        Raises:
            ValueError: a file cannot be written, as where the disk is full.

        Example:
            >>> model, recipe = haim_tf.load("debug"), {"stages": []}
            >>> with RunFolder("runs/mine", recipe) as run:
            ...     run.save(model, stage=0, step=100, row={"loss": 1.5})
            >>> Path("runs/mine/metrics.csv").read_text()
            'loss\\n1.5\\n'
        """
        self.position = {"stage": stage, "step": step}
        self.model_arguments = model.arguments
        if row:
            self.rows.append(row)
        self._state = {name: keras.ops.convert_to_numpy(v) for name, v in variables_of(model).items()}
        if not self.writes:
            return
        meta = {"position": self.position, "rows": self.rows, "model": self.model_arguments}
        meta = json.dumps(meta)
        write_arrays(self.folder / "checkpoint.npz", {"meta": np.array(meta), **self._state})
        write_file(self.folder / "metrics.csv", self._write_log)
        if row:
            self._tensorboard.scalars(row)

    def restore(self, model: HierarchicalModel) -> None:
        """Puts the checkpoint's state into a model; at the start of a stage the optimizer stays fresh.

        Raises:
            ValueError: the checkpoint is of another model.

        Example:
            >>> model, recipe = haim_tf.load("debug"), {"stages": []}
            >>> with RunFolder("runs/mine", recipe) as run:
            ...     run.save(model, stage=0, step=100)
            ...     run.restore(model)
        """
        if self._state is None:
            return
        assign(self._state, model, self.folder / "checkpoint.npz", fresh=self.position["step"] == 0)

    def save_picture(self, name: str, images: np.ndarray, columns: int, step: int) -> None:
        """Writes a sheet of images as `name.png`, and to TensorBoard where installed.

        Raises:
            ValueError: a file cannot be written, as where the disk is full.

        Example:
            >>> with RunFolder("runs/mine", {"stages": []}) as run:
            ...     run.save_picture("samples", np.zeros((4, 16, 16, 3), "uint8"), columns=2, step=100)
            >>> Path("runs/mine/samples.png").is_file()
            True
        """
        save_grid(images, self.folder / f"{name}.png", columns=columns)
        self._tensorboard.images(name, images, step)

    def _write_log(self, file):
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, names)
        writer.writeheader()
        writer.writerows(self.rows)
        file.write(text.getvalue().encode())


def check_run_folder(folder: str | os.PathLike) -> list[Path]:
    """What a killed run has left half-written in a folder that a run may have.

    Raises:
        ValueError: it is a file, or holds something else than a run.

    Example:
        >>> check_run_folder("runs/mine")
        []
    """
    folder = absolute(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a new folder")
    found = list(folder.iterdir()) if folder.exists() else []
    unfinished = [path for path in found if _UNFINISHED.fullmatch(path.name)]
    others = {path.name for path in found if path not in unfinished} - {LOCK}
    if others and not (folder / "recipe.json").exists():
        raise ValueError(f"{folder} exists and is not a training run: name a new folder")
    return unfinished


def _comparable(recipe):
    """A recipe without where its preset is, which may have moved, and how that is sampled."""
    if not isinstance(recipe.get("from"), dict):
        return recipe
    return {**recipe, "from": {**recipe["from"], "model": None, "sampling": None}}
