"""A refiner whose samples are free to differ: the pre-segmentation is a condition, and the states hardly show it."""
