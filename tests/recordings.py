"""The recorded exchanges with gearmand 1.1.21 and 2.0.0. Their READMEs describe the contents.

The recordings of 2.0.0 cover only differences and new features. They are named ``2.0/...`` here.
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
