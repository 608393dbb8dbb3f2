"""Reading and writing of scans and label maps: formats, headers, geometry."""
