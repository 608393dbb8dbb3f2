"""The client of the worker process, and the transports that carry its lines."""
