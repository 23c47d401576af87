"""A preset folder: its files, how it is found and read; and the folders of the zoo."""

from __future__ import annotations

import difflib
import fnmatch
import importlib.resources
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haim_tf import files, progress
from haim_tf.checks import check_sampling
from haim_tf.presets import downloads
from haim_tf.version import __version__

if TYPE_CHECKING:
    from haim_tf.models import HierarchicalModel

FORMAT_VERSION = 1
MODEL = "HierarchicalModel"
# The files of a folder.
CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
METADATA = "metadata.json"
CARD = "README.md"
# Of the entries of a preset's metadata, those that more than a card is made of; any may be null.
KINDS = {"name": str, "sha256": str, "weights_url": str, "class_names": list, "sampling": dict}
KINDS |= {"dataset": dict, "evaluation": dict, "training": dict, "pictures": dict, "metrics": list}
KINDS |= {"license": str, "description": str, "limits": list}


def list_models(pattern: str = "*", pretrained: bool | None = None) -> list[str]:
    """Names of the models in the zoo, sorted.

    Args:
        pattern: which names, in the notation of `fnmatch`.
        pretrained: `True`: only those whose trained weights are here; `False`: only the others; `None`: all.

    Example:
        >>> list_models("deb*")
        ['debug']
    """
    names = sorted(path.parent.name for path in zoo().glob(f"[!.]*/{CONFIG}"))
    names = fnmatch.filter(names, pattern)
    return names if pretrained is None else [n for n in names if is_pretrained(zoo() / n) == pretrained]


def find(name_or_folder: str | os.PathLike, weights: bool = False) -> Path:
    """The preset folder of a name in the zoo, or the folder itself, as a `Path`; errors as `load`.

    One on the hub is downloaded, with `weights` where these are wanted too.

    Raises:
        ValueError: an unknown name, or none at all.
        FileNotFoundError: no such folder.

    Example:
        >>> find("debug").name
        'debug'
    """
    if not isinstance(name_or_folder, (str, os.PathLike)):
        raise ValueError(f"a model must be a name or a preset folder, got {name_or_folder!r}")
    if str(name_or_folder).startswith("hf:"):
        from haim_tf.presets import hub  # Which knows what a preset's files are from here.

        return hub.fetch(str(name_or_folder), weights)
    names = list_models()
    if name_or_folder in names:
        folder, other = zoo() / name_or_folder, files.expanded(name_or_folder)
        if (other / CONFIG).is_file() and not other.samefile(folder):
            progress.tell(f"{name_or_folder} is the zoo's, not the folder here: that is ./{name_or_folder}")
        return folder
    if name_or_folder != "" and (folder := files.expanded(name_or_folder)).is_dir():
        return folder
    if not isinstance(name_or_folder, str) or os.sep in name_or_folder or name_or_folder[:1] in (".", "~"):
        raise FileNotFoundError(f"there is no preset folder {str(name_or_folder)!r}")
    near = difflib.get_close_matches(name_or_folder, names)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise ValueError(
        f"there is no model {name_or_folder!r}: {hint}the models are {', '.join(names)}; "
        "a preset folder or hf://owner/name is accepted as well"
    )


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A preset's constructor arguments and metadata, two dicts from its JSON files; errors as `load`.

    Raises:
        ValueError: files that are damaged, of another format or of something else.
        FileNotFoundError: a file of the preset is missing.

    Example:
        >>> arguments, metadata = read(find("debug"))
        >>> arguments["image_shape"], metadata["name"]
        ([16, 16, 3], 'debug')
    """
    config, metadata = (_read_json(folder / name) for name in (CONFIG, METADATA))
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{folder} has the preset format {version!r}; this is haim_tf {__version__}, which reads format "
            f"{FORMAT_VERSION}"
        )
    arguments = config.get("config")
    if config.get("class_name") != MODEL or not isinstance(arguments, dict):
        raise ValueError(
            f"{folder / CONFIG} must hold the class_name {MODEL!r} and its arguments as config, "
            f"got the class_name {config.get('class_name')!r} and the keys {sorted(config)}"
        )
    check_metadata(folder, arguments, metadata)
    return arguments, metadata


def check_metadata(folder: Path, arguments: dict[str, Any], metadata: dict[str, Any]) -> None:
    """A ValueError where an entry of a preset's metadata is of another kind than what reads it needs, or
    does not fit the model of these arguments."""
    for key, kind in KINDS.items():
        if not isinstance(metadata.get(key), (kind, type(None))):
            told = {str: "a text", list: "a list", dict: "an object"}[kind]
            raise ValueError(f"{folder / METADATA} must have {told} as {key}, got {metadata[key]!r:.60}")
    names, count = metadata.get("class_names"), arguments.get("num_classes")
    if names is not None and not (len(names) == count and all(isinstance(name, str) for name in names)):
        wanted = f"{count} texts as class_names" if count else "no class_names where the model has no classes"
        raise ValueError(f"{folder / METADATA} must have {wanted}, got {names!r:.60}")
    levels = arguments.get("levels")
    if isinstance(levels, (list, tuple)):  # Else it describes no model, which is said where one is made.
        # Whether guidance is possible, only the model can tell.
        _check_sampling(folder, metadata, len(levels) + 1, guided=True)


def sampling_of(folder: Path, model: HierarchicalModel, metadata: dict[str, Any]) -> dict[str, Any] | None:
    """The sampling defaults that metadata holds for a model; a ValueError where they do not fit it."""
    _check_sampling(folder, metadata, len(model.networks), model.takes_guidance)
    return metadata.get("sampling")


def _check_sampling(folder, metadata, networks, guided):
    try:
        check_sampling(metadata.get("sampling"), networks, guided)
    except ValueError as error:
        raise ValueError(f"{folder / METADATA} does not fit the model: {error}") from None


def is_pretrained(folder: Path) -> bool:
    """Whether a preset's weights are here (in its folder, or downloaded), and trained ones.

    Example:
        >>> is_pretrained(find("debug"))
        False
    """
    metadata = read(folder)[1]
    return bool(weights_path(folder, metadata).is_file() and metadata.get("pretrained"))


def weights_path(folder: Path, metadata: dict[str, Any], download: bool = False) -> Path:
    """Where a preset's weights are, or should be: in its folder, or where its `weights_url` is downloaded."""
    path, url = folder / WEIGHTS, metadata.get("weights_url")
    if path.exists() or not url:
        return path
    if not metadata.get("sha256"):
        raise ValueError(f"{folder / METADATA} names a weights_url but no sha256 to check it by")
    name, sha256 = metadata.get("name") or folder.name, metadata["sha256"]
    return downloads.fetch(name, url, sha256) if download else downloads.kept_path(name, sha256)


def zoo() -> Path:
    """The folder of the zoo's presets and recipes.

    Example:
        >>> (zoo() / "debug" / "config.json").is_file()
        True
    """
    try:
        return Path(str(importlib.resources.files("haim_tf.zoo")))
    except ModuleNotFoundError:  # Python found a clone of the repository in front of what is installed.
        return Path(__file__).resolve().parents[2] / "zoo"


def _read_json(path):
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} is no preset folder: it has no {path.name}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged or no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, got {str(value)[:60]}")
    return value
