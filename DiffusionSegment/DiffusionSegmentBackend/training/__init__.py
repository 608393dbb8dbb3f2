"""Training: one module per network, and the resumable training loop, losses and objectives."""
