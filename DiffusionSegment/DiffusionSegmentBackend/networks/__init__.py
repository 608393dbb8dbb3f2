"""Networks: body-part regressor, diffusion backbone, probe and refiner; and `Segmenter` of the second generation."""
