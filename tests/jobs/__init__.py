"""Tests of jobs and requests."""
