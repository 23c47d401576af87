"""Presets on the Hugging Face hub: `hf://owner/name`, or `hf://owner/name@revision`.

The package `huggingface_hub` does it (`pip install "haim-tf[hub]"`): files are kept in its own cache, its
environment variables hold (`HF_HOME`, `HF_TOKEN`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`), and `HAIM_TF_OFFLINE`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from haim_tf import files, progress
from haim_tf.presets import downloads, weights_file
from haim_tf.presets.folder import CARD, CONFIG, METADATA, WEIGHTS, read
from haim_tf.presets.model_card import model_card
from haim_tf.version import __version__

SCHEME = "hf://"
_REFERENCE = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
LIBRARY = {"library_name": "haim_tf", "library_version": __version__}
TAGS = ["image-generation", "autoregressive", "vector-quantization", "keras", "arxiv:1903.04933"]


class Reference(NamedTuple):
    """A repository of the hub, `owner/name`, and a branch, tag or commit of it, or `None`."""

    repository: str
    revision: str | None


def parse(text: str) -> Reference:
    """What a reference names.

    Raises:
        ValueError: it is none.

    Example:
        >>> parse("hf://me/mine@v2")
        Reference(repository='me/mine', revision='v2')
    """
    match = _REFERENCE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(
            f"a preset on the hub must be hf://owner/name or hf://owner/name@revision, got {text!r}"
        )
    return Reference(match["repository"], match["revision"])


def fetch(reference: str, weights: bool = True) -> Path:
    """Downloads what is not here yet of a preset on the hub.

    What was downloaded before is asked for by its revision only, and used without asking where there is no
    network. Weights whose checksum is not that of `metadata.json` are downloaded once more.

    Args:
        reference: `hf://owner/name`, or with `@` and a branch, tag or commit.
        weights: whether the weights are wanted too.

    Returns:
        The preset's folder, a `Path`, in the cache of `huggingface_hub`.

    Raises:
        ValueError: no such reference, or `huggingface_hub` is not installed.
        FileNotFoundError: offline, no such repository or revision, or a download that fails.
    """
    repository, revision = parse(reference)
    hub = _library()
    offline = downloads.offline()

    def download(**options):
        return hub.snapshot_download(
            repository,
            revision=revision,
            allow_patterns=[CONFIG, METADATA, CARD, "*.png", *([WEIGHTS] if weights else [])],
            local_files_only=offline,
            tqdm_class=_bar(hub),
            **LIBRARY,
            **options,
        )

    try:
        folder = Path(download())
        if weights and not offline and not _is_whole(folder):
            # A damaged file in the cache would stay there.
            folder = Path(download(force_download=True))
    except Exception as error:  # Of many types: of HTTP, of the file system, the library's own.
        told = " ".join(str(error).split())[:300]
        if offline and isinstance(error, hub.utils.LocalEntryNotFoundError):
            told = "it is not among the files downloaded before, and HAIM_TF_OFFLINE is set"
        raise FileNotFoundError(f"cannot download {reference}: {told}") from error
    if weights and _sha256(folder) and not (folder / WEIGHTS).exists():
        raise FileNotFoundError(f"cannot download {reference}: its weights are not among the files that came")
    return folder


def _bar(hub):
    """The library's progress bar, on terminals alone."""

    class Bar(hub.utils.tqdm):
        def __init__(self, *arguments, **options):
            quiet = {} if progress.is_terminal() else {"disable": True}
            super().__init__(*arguments, **{**options, **quiet})

    return Bar


def _is_whole(folder):
    """Whether a preset's weights are those that its metadata names, where it names any."""
    wanted, path = _sha256(folder), folder / WEIGHTS
    return not wanted or (path.exists() and weights_file.sha256(path) == wanted)


def _sha256(folder):
    """What a preset's metadata says of its weights; `None` where it says nothing, or is damaged: that says
    the one who reads it."""
    try:
        metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return metadata.get("sha256") if isinstance(metadata, dict) and "weights_url" not in metadata else None


def upload(folder: str | os.PathLike, to: str, private: bool = False, license: str | None = None) -> str:
    """Puts a preset on the hub, in one commit: its files, with the hub's front matter in its card.

    Args:
        folder: of the preset.
        to: `hf://owner/name`; the repository is made where it does not exist.
        private: whether a new repository is only for those whom its owner lets in.
        license: of the weights, an identifier that the hub knows ("apache-2.0", "cc-by-nc-4.0"); by default
            the `license` of the preset's metadata, or else "other", and the card tells the terms.

    Returns:
        The URL of the repository.

    Raises:
        ValueError: `to` is no repository, weights that are damaged, `huggingface_hub` is not installed, or
            the hub refuses.
        FileNotFoundError: no such preset, or one without weights.

    Example:
        >>> upload("runs/mine/preset", "hf://me/mine", license="cc-by-nc-4.0")
        'https://huggingface.co/me/mine'
    """
    repository, revision = parse(to)
    if revision is not None:
        raise ValueError(f"a preset is uploaded to hf://owner/name, without a revision, got {to!r}")
    hub = _library()
    folder = files.expanded(folder)
    arguments, metadata = read(folder)
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"there are no weights {folder / WEIGHTS} to upload")
    weights_file.check(folder / WEIGHTS, metadata.get("sha256"))
    try:
        card = front_matter(metadata, license) + model_card(arguments, metadata, source=to)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / METADATA} must be as save_to_preset writes it, got {error!r}") from error
    contents: dict[str, Any] = {name: str(folder / name) for name in (CONFIG, METADATA, WEIGHTS)}
    # Of the folder alone, whatever paths the metadata names.
    pictures = [name for name in metadata.get("pictures") or {} if Path(name).name == name]
    contents |= {name: str(folder / name) for name in pictures if (folder / name).is_file()}
    contents[CARD] = card.encode()
    api = hub.HfApi(**LIBRARY)
    try:
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.create_commit(
            repository,
            [hub.CommitOperationAdd(name, content) for name, content in contents.items()],
            commit_message=f"{metadata['name']}, by haim_tf {__version__}",
        )
    except Exception as error:  # As above.
        raise ValueError(f"cannot upload to {to}: {' '.join(str(error).split())[:300]}") from error
    return str(url)


def front_matter(metadata: dict[str, Any], license: str | None = None) -> str:
    """What the hub reads at the head of a card: licence, tags, library name, in YAML."""
    license = license or metadata.get("license")
    told = {"license": license} if license else {"license": "other", "license_name": "see-the-card"}
    data = _library().ModelCardData(
        **told, library_name="haim_tf", pipeline_tag="unconditional-image-generation", tags=TAGS
    )
    return f"---\n{data.to_yaml()}\n---\n\n"


def _library():
    try:
        import huggingface_hub
    except ImportError:
        raise ValueError(
            f'{SCHEME}owner/name needs the package huggingface_hub: pip install "haim-tf[hub]"'
        ) from None
    return huggingface_hub
