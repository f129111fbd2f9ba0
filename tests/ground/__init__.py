"""Tests of the modules that all others depend on."""
