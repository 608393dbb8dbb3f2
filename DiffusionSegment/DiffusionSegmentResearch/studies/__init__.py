"""The measurements behind docs/EVIDENCE.md: each study reads labelled scans and writes one small result file."""
