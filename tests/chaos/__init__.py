"""Chaos tests: clients and workers of all surfaces use faulty proxies and servers that are killed.

README.md describes their use and their checks.
"""
