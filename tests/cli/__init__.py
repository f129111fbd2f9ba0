"""gearmanctl, run as a user runs it, against gearmand and JobServer."""
