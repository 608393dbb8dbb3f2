"""The four networks: body-part regressor, diffusion backbone, probe and refiner."""
