"""Programs as they are written for python-gearman and its forks, with one line added at the top."""
