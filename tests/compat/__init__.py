"""Programs written for python-gearman and its forks, run with gearman_sync in its place."""
