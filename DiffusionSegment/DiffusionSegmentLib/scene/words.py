"""What a reader sees of kinds, policies, states and steps, in the language of the application; saved values stay.

Read this module where a word is shown, not at the top of a file: outside the application there is no translation.
"""

from slicer.i18n import tr as _

from .history import StepName
from .merge_policy import MergePolicy
from .overlay import OverlayKind
from .review import RegionState

LABELS = {
    OverlayKind.NONE: _("None"),
    OverlayKind.UNCERTAINTY: _("Uncertainty"),
    OverlayKind.MUTUAL_INFORMATION: _("Mutual information"),
    OverlayKind.BODY_RIGHT_LEFT: _("Body: right to left"),
    OverlayKind.BODY_ANTERIOR_POSTERIOR: _("Body: anterior to posterior"),
    OverlayKind.BODY_INFERIOR_SUPERIOR: _("Body: inferior to superior"),
    MergePolicy.NEW: _("New segmentation"),
    MergePolicy.REPLACE: _("Replace the last result"),
    MergePolicy.FILL_EMPTY: _("Fill only what is empty"),
    MergePolicy.RESPECT_LOCKED: _("Replace all but locked organs"),
    RegionState.OPEN: _("Open"),
    RegionState.ACCEPTED: _("Accepted"),
    RegionState.CORRECTED: _("Corrected"),
    RegionState.FLAGGED: _("Flagged"),
    StepName.SEGMENT: _("Segment"),
    StepName.APPLY_CORRECTIONS: _("Apply corrections"),
    StepName.PICK_ALTERNATIVE: _("Pick alternative"),
    StepName.SIMILAR_REGION: _("Similar region"),
}
UNDO = _("Undo {step}")
REDO = _("Redo {step}")

# By the title that an overlay's style names.
LEGENDS = {
    "Uncertainty (0 to 1)": _("Uncertainty (0 to 1)"),
    "Mutual information (0 to 1)": _("Mutual information (0 to 1)"),
    "Right - left (mm)": _("Right - left (mm)"),
    "Anterior - posterior (mm)": _("Anterior - posterior (mm)"),
    "Inferior - superior (mm)": _("Inferior - superior (mm)"),
    "Similarity": _("Similarity"),
}
