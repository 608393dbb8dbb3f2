"""The results in the scene by their input volume, and which of them the panel shows."""

import slicer

from ..scene.result import SceneResult


class SceneResults:
    """One result for each input volume; another run on the same volume replaces it.

    `shownInput` is the input volume of the shown result, None while no result is shown.
    """

    def __init__(self) -> None:
        self._results: dict[str, SceneResult] = {}
        self.shownInput: slicer.vtkMRMLScalarVolumeNode | None = None

    @property
    def shown(self) -> SceneResult | None:
        """The result that table, overlay and review show."""
        return self.of(self.shownInput) if self.shownInput is not None else None

    def of(self, inputNode: slicer.vtkMRMLScalarVolumeNode) -> SceneResult | None:
        """The result of an input volume."""
        return self._results.get(inputNode.GetID())

    def put(self, inputNode: slicer.vtkMRMLScalarVolumeNode, result: SceneResult) -> None:
        """Set the result of an input volume."""
        self._results[inputNode.GetID()] = result

    def isShown(self, node: slicer.vtkMRMLNode) -> bool:
        """Whether the shown result needs this node."""
        return self.shown is not None and (node is self.shownInput or node is self.shown.segmentation)

    def remove(self, node: slicer.vtkMRMLNode) -> None:
        """Drop the results of which this node is the input volume or the segmentation."""
        self._results = {key: result for key, result in self._results.items() if result.segmentation is not node}
        self._results.pop(node.GetID(), None)

    def clear(self) -> None:
        """Drop all results."""
        self._results.clear()
