"""Whether this machine can draw without a display. Asked of a child process: VTK ends the process where it cannot."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

# Software rendering first: the same pixels on every machine.
_WINDOWS = ("vtkOSOpenGLRenderWindow", "vtkEGLRenderWindow")
_VARIABLE = "VTK_DEFAULT_OPENGL_WINDOW"
_TRIAL = (
    "import vtk; w = vtk.vtkRenderWindow(); w.SetOffScreenRendering(1); w.SetSize(8, 8); w.Render(); "
    "print(w.SupportsOpenGL())"
)
_SECONDS = 120


class OffscreenUnavailable(RuntimeError):
    """No view can be drawn on this machine; the text says what to install."""


def requireOffscreen() -> None:
    """Make VTK draw off-screen, with the window class that works on this machine.

    Raises:
        OffscreenUnavailable: None works.
    """
    window = offscreenWindow()
    if not window:
        raise OffscreenUnavailable(
            "off-screen OpenGL is missing (libOSMesa or libEGL); on Debian and Ubuntu: make system-packages"
        )
    os.environ[_VARIABLE] = window


@functools.cache
def offscreenWindow() -> str:
    """The class of VTK's window that draws without a display, "" for none; the environment's own choice comes first."""
    chosen = os.environ.get(_VARIABLE)
    return next((window for window in ((chosen,) if chosen else _WINDOWS) if _draws(window)), "")


def _draws(window: str) -> bool:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRIAL],
            env={**os.environ, _VARIABLE: window},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and done.stdout.strip().endswith("1")
