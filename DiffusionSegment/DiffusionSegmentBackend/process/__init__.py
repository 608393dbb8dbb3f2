"""Setup of a process at its start: log, environment variables, standard streams."""
