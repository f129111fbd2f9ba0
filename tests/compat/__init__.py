"""Tests with programs for python-gearman and its forks, run with gearman_sync instead."""
