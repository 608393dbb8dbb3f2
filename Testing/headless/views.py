"""Slice and 3D views drawn off-screen by Slicer's own displayable managers, given back as RGB arrays."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from .host import HeadlessSlicer
from .offscreen import requireOffscreen

_SLICE_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLColorLegendDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
)
_VOLUME_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
)


def _window(width: int, height: int) -> vtk.vtkRenderWindow:
    requireOffscreen()
    window = vtk.vtkRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(0)
    window.SetSize(width, height)
    return window


def _grab(window: vtk.vtkRenderWindow) -> np.ndarray:
    window.Render()
    grabber = vtk.vtkWindowToImageFilter()
    grabber.SetInput(window)
    grabber.SetInputBufferTypeToRGB()
    grabber.ReadFrontBufferOff()
    grabber.Update()
    image = grabber.GetOutput()
    width, height, _ = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, 3)[::-1].copy()


class _ImageLayer:
    """Draws the blended slice image; in the application a widget does this."""

    def __init__(self, renderer: vtk.vtkRenderer) -> None:
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._actor = vtk.vtkActor2D()
        self._actor.SetMapper(self._mapper)
        self._actor.GetProperty().SetDisplayLocationToBackground()
        # Two-dimensional actors are drawn in the order of their adding: the image comes first, or outlines hide it.
        renderer.AddViewProp(self._actor)
        self._actor.VisibilityOff()

    def show(self, connection: vtk.vtkAlgorithmOutput | None) -> None:
        """Draw what the slice logic gives."""
        self._mapper.SetInputConnection(connection)
        self._actor.SetVisibility(connection is not None)


class SliceView:
    """One slice view. `orientation` is Axial, Coronal or Sagittal, radiological: the patient's right on the left."""

    def __init__(self, host: HeadlessSlicer, name: str, orientation: str, *, size: tuple[int, int]) -> None:
        self._host = host
        self._window = _window(*size)
        self._renderer = vtk.vtkRenderer()
        self._renderer.GetActiveCamera().ParallelProjectionOn()
        self._window.AddRenderer(self._renderer)
        self._interactor = vtk.vtkRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        self._layer = _ImageLayer(self._renderer)
        self._managers = slicer.vtkMRMLDisplayableManagerGroup()
        _initialize(self._managers, slicer.vtkMRMLSliceViewDisplayableManagerFactory, _SLICE_MANAGERS, self._renderer)
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(host.logic)
        host.logic.GetSliceLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(host.scene)
        self.node = self.logic.AddSliceNode(name)
        self.node.SetOrientation(orientation)
        self._managers.SetMRMLDisplayableNode(self.node)
        self.logic.ResizeSliceNode(*size)

    def showAt(self, ras: tuple[float, float, float], *, fieldOfView: float) -> None:
        """Centre the view on a point, RAS mm; `fieldOfView` is its width in mm."""
        width, height = self._window.GetSize()
        self.node.SetFieldOfView(fieldOfView, fieldOfView * height / width, 1.0)
        self.node.JumpSliceByCentering(*ras)

    def grab(self) -> np.ndarray:
        """RGB array (height, width, 3), uint8."""
        self.logic.UpdatePipeline()
        self._layer.show(self.logic.GetImageDataConnection())
        return _grab(self._window)

    def close(self) -> None:
        """Take the view and its nodes out of the application, as a change of layout does."""
        scene = self.logic.GetMRMLScene()
        for node in (self.logic.GetSliceCompositeNode(), self.logic.GetSliceNode()):
            if node is not None and node.GetScene() is scene:
                scene.RemoveNode(node)
        self._managers.SetMRMLDisplayableNode(None)
        self._host.logic.GetSliceLogics().RemoveItem(self.logic)
        self.logic.SetMRMLScene(None)


class ThreeDView:
    """The 3D view of closed surfaces, seen from the front."""

    def __init__(self, host: HeadlessSlicer, *, size: tuple[int, int]) -> None:
        self._window = _window(*size)
        self._renderer = vtk.vtkRenderer()
        self._window.AddRenderer(self._renderer)
        self._interactor = vtk.vtkRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        self._managers = slicer.vtkMRMLDisplayableManagerGroup()
        _initialize(self._managers, slicer.vtkMRMLThreeDViewDisplayableManagerFactory, _VOLUME_MANAGERS, self._renderer)
        self.logic = slicer.vtkMRMLViewLogic()
        self.logic.SetMRMLApplicationLogic(host.logic)
        host.logic.GetViewLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(host.scene)
        self.node = self.logic.AddViewNode("1")
        self.node.SetBoxVisible(0)
        self.node.SetAxisLabelsVisible(0)
        self.node.SetBackgroundColor(0, 0, 0)
        self.node.SetBackgroundColor2(0, 0, 0)
        self._managers.SetMRMLDisplayableNode(self.node)

    def grab(self) -> np.ndarray:
        """RGB array (height, width, 3), uint8, from the front and slightly above, all surfaces in view."""
        self._window.Render()
        bounds = self._renderer.ComputeVisiblePropBounds()
        camera = self._renderer.GetActiveCamera()
        centre = [(bounds[2 * a] + bounds[2 * a + 1]) / 2 for a in range(3)]
        camera.SetFocalPoint(*centre)
        camera.SetPosition(centre[0], centre[1] + 1000, centre[2] + 150)
        camera.SetViewUp(0, 0, 1)
        self._renderer.ResetCamera(bounds)
        camera.Zoom(1.35)
        return _grab(self._window)


def _initialize(
    group: slicer.vtkMRMLDisplayableManagerGroup, factory: type, managers: tuple[str, ...], renderer: vtk.vtkRenderer
) -> None:
    instance = factory.GetInstance()  # type: ignore[attr-defined]
    for name in managers:
        if not instance.IsDisplayableManagerRegistered(name):
            instance.RegisterDisplayableManager(name)
    group.Initialize(instance, renderer)
