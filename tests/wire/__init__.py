"""Tests of one connection: bytes and events."""
