"""Weights that a preset names by URL: downloaded once, checked, and kept in the user's own folder.

Environment variables: `HAIM_TF_HOME`, where they are kept (`~/.cache/haim_tf`); `HAIM_TF_OFFLINE`, which
set to anything but 0 forbids downloads.
"""

import os
import re
from pathlib import Path

from haim_tf import progress
from haim_tf.files import home

RETRIES = 3
SCHEMES = "https://", "http://", "ftp://"


def offline() -> bool:
    """Whether downloads are forbidden."""
    return os.environ.get("HAIM_TF_OFFLINE", "0") not in ("", "0")


def kept_path(name: str, sha256: str) -> Path:
    """Where the weights of a preset of this name are, or will be, kept. The checksum sets versions apart.

    Both may be a stranger's: whatever they are, it is a file in that folder.

    Raises:
        ValueError: `sha256` is no checksum.
    """
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError(f"the sha256 of {name} must be 64 hexadecimal digits, got {sha256!r:.80}")
    plain = re.sub(r"[^\w.-]", "_", name)
    return home() / f"{plain}-{sha256[:16]}.weights.h5"


def fetch(name: str, url: str, sha256: str) -> Path:
    """Downloads weights where they are not here yet.

    They are written beside their name and renamed once the checksum fits; what was cut off or damaged on the
    way is tried again, a few times.

    Args:
        name: the preset's name.
        url: http, https or ftp.
        sha256: the file's checksum, 64 hexadecimal digits.

    Returns:
        The file, a `Path`.

    Raises:
        FileNotFoundError: offline, or the server does not give the file.
        ValueError: what it gives has another checksum; `url` or `sha256` is something else.
    """
    path = kept_path(name, sha256)
    if path.is_file():
        return path
    if not url.startswith(SCHEMES):
        raise ValueError(
            f"the weights_url of {name} must begin with one of {', '.join(SCHEMES)}, got {url!r:.200}"
        )
    if offline():
        raise FileNotFoundError(
            f"the weights of {name} are not here and HAIM_TF_OFFLINE is set: unset it, or put {url} at {path}"
        )
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    downloads = pooch.create(
        path.parent,
        base_url="",
        registry={path.name: f"sha256:{sha256}"},
        urls={path.name: url},
        retry_if_failed=RETRIES,
    )
    try:
        return Path(downloads.fetch(path.name, progressbar=progress.is_terminal()))
    except (requests.RequestException, OSError) as error:
        raise FileNotFoundError(f"cannot download the weights of {name} from {url}: {error}") from error
    except ValueError as error:
        raise ValueError(f"the weights of {name} from {url} are damaged: {error}") from error
