"""Tests of gearman_sync.testing."""
