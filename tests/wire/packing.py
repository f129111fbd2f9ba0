"""The packing of `gearman_proto.testing`, under the name that the fuzzers know."""

from gearman_proto.testing import pack

__all__ = ["pack"]
