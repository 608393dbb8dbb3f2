"""The part of DiffusionSegment that runs inside Slicer: scene, worker client, panel. It never imports torch."""
