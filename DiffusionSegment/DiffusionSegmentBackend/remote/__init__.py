"""The client of the HTTPS server: the worker's JSON lines on one side, HTTPS on the other (standard library, numpy)."""
