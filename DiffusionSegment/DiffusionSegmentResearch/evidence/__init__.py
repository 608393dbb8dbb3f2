"""The page docs/EVIDENCE.md and its plots, made from small JSON files of results."""
