"""The cases for servers."""
