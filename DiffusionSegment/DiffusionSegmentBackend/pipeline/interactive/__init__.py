"""What a reader does with a result: corrections, scribbles, alternatives, similar voxels."""
