"""Tier 2: everything that a client, a worker, a job server or an admin client decides."""
