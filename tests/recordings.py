"""The recorded exchanges with gearmand 1.1.21 and with 2.0.0; their READMEs say what they hold.

Of 2.0.0 there is what it does differently, and what is new in it: its recordings are named
``2.0/...`` here. Whatever has no other name of its own is as it was.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

_HERE: Final = Path(__file__).parent
_FOLDERS: Final = {"": _HERE / "vectors", "2.0/": _HERE / "vectors-2.0"}

VECTORS: Final[dict[str, Any]] = {
    prefix + path.stem: json.loads(path.read_text())
    for prefix, folder in _FOLDERS.items()
    for path in sorted(folder.glob("*.json"))
}
