"""Check boxes in lists and tables that are visible in a dark theme too."""

from typing import Any

import qt

_GREY = 160


def frameCheckBoxes(view: Any) -> None:
    """Draw the frames of check boxes of a list or table in grey.

    Qt draws the frame darker than the window and fills the box like the list: in a dark theme an unchecked box would be
    invisible.
    """
    palette = view.palette
    palette.setColor(qt.QPalette.Window, qt.QColor(_GREY, _GREY, _GREY))
    view.setPalette(palette)
