"""Chaos tests: clients and workers of all surfaces use faulty proxies and dying servers.

README.md describes their use and their checks. `proxy` and `faults` depend on nothing else in this
package.
"""
