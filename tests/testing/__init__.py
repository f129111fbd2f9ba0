"""Tests of gearman_proto.testing."""
