"""Ticks in lists and tables that can be seen in a dark theme too."""

from typing import Any

import qt

_GREY = 160


def frameCheckBoxes(view: Any) -> None:
    """Frame the boxes of a list or table in grey.

    Qt draws the frame a shade darker than the window, and fills the box like the list around it: in a dark theme a box
    without a tick would not be seen.
    """
    palette = view.palette
    palette.setColor(qt.QPalette.Window, qt.QColor(_GREY, _GREY, _GREY))
    view.setPalette(palette)
