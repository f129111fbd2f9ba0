"""The worker engine and its parts."""
