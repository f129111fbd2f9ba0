"""Runs of the conformance suite against our programs, broken doubles and other implementations."""
