"""Labelled cases, folds, and patches drawn from them."""
