"""Models of other programs whose segmentation is reviewed: nnU-Net v2 model folders and MONAI bundles, as plug-ins."""
