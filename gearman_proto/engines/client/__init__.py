"""The client engine and its parts."""
