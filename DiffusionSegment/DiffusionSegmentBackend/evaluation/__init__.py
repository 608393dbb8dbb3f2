"""Measuring a model against labelled scans, in the scans' own geometry."""
