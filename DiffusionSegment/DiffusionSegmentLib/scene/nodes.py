"""Finding nodes in a scene."""

from __future__ import annotations

import slicer


def nodesOfClass(scene: slicer.vtkMRMLScene, className: str) -> list[slicer.vtkMRMLNode]:
    """All nodes of a class in a scene, those of its subclasses too; a list, so that the scene may change meanwhile."""
    return [scene.GetNthNodeByClass(n, className) for n in range(scene.GetNumberOfNodesByClass(className))]
