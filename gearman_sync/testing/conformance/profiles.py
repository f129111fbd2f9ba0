"""Profiles: which of several known behaviours must be, for a server that means to be like another.

A case names its known behaviours, and each names the profiles in which it must be so. With the
profile ``document``, which is the default, nothing but what the document demands is a failure.
"""

from __future__ import annotations

from typing import Final

#: What each profile is.
PROFILES: Final = {
    "document": "what the protocol document demands",
    "gearmand-1.1": "what gearmand 1.1 does (tried: 1.1.21)",
    "gearmand-2.0": "what gearmand 2.0 does (tried: 2.0.0)",
    "perl": "what Perl's Gearman::Server does (tried: 1.130.1)",
}
