"""Where models lie, what their manifests say, and the networks that are built from them."""
