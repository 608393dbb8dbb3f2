"""Measures of label maps and of their uncertainty."""
