"""Tests of the blocking client with gearmand and with scripted servers."""
