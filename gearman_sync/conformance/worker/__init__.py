"""The cases for workers."""
