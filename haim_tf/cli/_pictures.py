"""Pictures shown where there is a screen."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def open_picture(path: Path) -> None:
    """Shows a picture by what the system shows them with; without a screen a line says that there is none."""
    import webbrowser

    screen = (
        sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    if not screen or not webbrowser.open(path.absolute().as_uri()):
        print(f"there is no screen to open {path} on", file=sys.stderr)
