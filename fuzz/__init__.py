"""What is run for long with any input: a file for each target."""
