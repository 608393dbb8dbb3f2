"""Evaluation of models on labelled scans, in the geometry of the scans."""
