"""The message of the panel, and the button that copies its details to the clipboard."""

from typing import Any

import qt
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode

from . import wording

# Refusals that the option "force" overrides.
_OVERRIDABLE = (ErrorCode.MODALITY, ErrorCode.BODY_PART_MISMATCH, ErrorCode.UNUSUAL_APPEARANCE)


class MessageArea:
    """Shows messages and errors in `messageLabel`; `detailsButton` is visible for a message that has details."""

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self._details = ""
        ui.detailsButton.clicked.connect(self.onDetailsButton)
        self.show("")

    @property
    def empty(self) -> bool:
        """Whether no message is shown."""
        return not self._ui.messageLabel.text

    def show(self, text: str, *, details: str = "") -> None:
        """Show a message, or none for an empty text; `details` are what the button copies."""
        self._details = details
        self._ui.messageLabel.text = text
        self._ui.messageLabel.visible = bool(text)
        self._ui.detailsButton.visible = bool(details)

    def showError(self, error: DiffusionSegmentError, *, trace: str = "", log: str = "") -> None:
        """Show an error with its next step and its code; traceback and worker log are its details."""
        override = wording.SEGMENT_ANYWAY if error.code in _OVERRIDABLE else ""
        text = " ".join(part for part in ("⚠", error.message, error.hint, override, f"[{error.code.value}]") if part)
        self.show(text, details="\n".join(part for part in (str(error), trace, log) if part))

    def onDetailsButton(self) -> None:
        """Copy the error, its traceback and the worker's log, for a bug report."""
        qt.QApplication.clipboard().setText(self._details)
