"""Models: their folders, their manifests, and the networks built from them."""
