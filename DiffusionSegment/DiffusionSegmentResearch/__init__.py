"""Studies, benchmark and the evidence page: research code that is not installed into Slicer."""
