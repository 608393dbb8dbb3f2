"""Segmentation of CT and MR by diffusion: plain Python, for command line, Slicer module, training and tests.

Importing this package costs nothing: torch, MONAI and SimpleITK load with the modules that need them, so that a process
that must stay free of them (Slicer's own) can still read `protocol`, `errors` and `buffers`.
"""

__version__ = "0.1.0"
