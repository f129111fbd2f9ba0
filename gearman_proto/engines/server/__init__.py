"""The job server's engine and its parts."""
