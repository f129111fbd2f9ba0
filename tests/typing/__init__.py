"""What type checkers see of the public surface: mypy and pyright judge it, and it runs, too."""
