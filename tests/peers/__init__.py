"""Combinations of real clients and workers with both servers."""
