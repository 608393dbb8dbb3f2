"""Messages between Slicer and the worker, and the buffers that carry volumes: standard library and numpy."""
