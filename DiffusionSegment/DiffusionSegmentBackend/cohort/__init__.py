"""Cohorts: the scans below a folder, segmented by several workers, with tables and a page to review them."""
