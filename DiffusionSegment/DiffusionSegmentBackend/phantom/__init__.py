"""A synthetic CT of an abdomen with exact labels."""
