"""The pipeline from a scan to organs with uncertainty, as used by the panel, the command line and tests."""
