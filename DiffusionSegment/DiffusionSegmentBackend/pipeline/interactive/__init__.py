"""Interaction with a result: corrections, scribbles, alternatives, similarity."""
