"""Tier 1: one connection. Bytes to events, and events to bytes."""
