"""Results as MRML nodes: segmentation, overlays, review. Imports slicer and vtk, never qt or torch."""
