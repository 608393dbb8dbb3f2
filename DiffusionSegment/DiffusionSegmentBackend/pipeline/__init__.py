"""From a scan to organs with uncertainty: the one pipeline that the panel, the command line and tests call."""
