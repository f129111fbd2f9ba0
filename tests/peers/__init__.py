"""Real clients, real workers and both servers, each with each."""
