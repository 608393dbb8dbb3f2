"""Slicer's own scene and views without the application: for tests, for the demo's picture."""
