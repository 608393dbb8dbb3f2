"""Results as real MRML nodes: segmentation, uncertainty, overlays. Imports slicer and vtk, never qt or torch."""
