"""Training of the four networks, one file each, and what they share: data, the resumable loop, losses."""
