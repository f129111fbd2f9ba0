"""The cases for clients."""
