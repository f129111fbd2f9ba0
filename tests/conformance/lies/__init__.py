"""Lies that make the cases fail."""
