"""The client of the worker process, and its transports."""
