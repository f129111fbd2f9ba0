"""The recorded exchanges with gearmand 1.1.21 and with 2.0.0; their READMEs say what they hold.

Of 2.0.0 there is what it does differently, and what is new in it: its recordings are named
``2.0/...`` here. Whatever has no other name of its own is as it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gearman_sync.testing import Recording

_HERE: Final = Path(__file__).parent
FOLDERS: Final = {"": _HERE / "vectors", "2.0/": _HERE / "vectors-2.0"}

VECTORS: Final[dict[str, Recording]] = {
    prefix + path.stem: Recording.load(path)
    for prefix, folder in FOLDERS.items()
    for path in sorted(folder.glob("*.json"))
}
