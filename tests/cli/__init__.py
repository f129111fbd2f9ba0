"""gearmanctl as a user runs it, on a JobServer, and on gearmand where its answers are the point."""
