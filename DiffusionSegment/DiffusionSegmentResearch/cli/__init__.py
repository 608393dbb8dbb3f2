"""The command `diffusion-segment-research`."""
