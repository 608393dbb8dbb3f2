"""What a process of this program sets up at its start: log, environment variables, standard streams."""
