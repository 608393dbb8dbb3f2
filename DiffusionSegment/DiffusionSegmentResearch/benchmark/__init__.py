"""Inference time and memory of a segmentation by stage, beside other networks on the same scan."""
