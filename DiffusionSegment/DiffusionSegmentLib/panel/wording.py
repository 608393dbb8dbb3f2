"""Words for the panel."""

STAGES = {
    "load": "Loading the model",
    "prepare": "Preparing the scan",
    "bodypart": "Finding the place in the body",
    "features": "Reading the anatomy",
    "refine": "Drawing samples",
    "restore": "Bringing the result back",
    "deliver": "Handing over",
}
SEGMENT = "Segment"
CANCEL = "Cancel"
CANCELLING = "Cancelling…"
NO_INPUT = "Choose an input volume first."
NO_MODEL = "No model is installed."
READY = "Segment the input volume with the chosen model."
RUNNING = "Stop the run; nothing will be changed."
STARTING = "Starting the segmentation process…"
CANCELLED = "Cancelled. Nothing was changed."
STOPPING = "The run stops after its current step."
UNKNOWN_MODEL = "The model {} is not installed; choose another."
NO_RESULT = "There is no result to show yet."
SURFACES = "Make surfaces of the organs for the 3D views."
NO_OVERLAY = "This overlay was not made: tick body coordinates under Advanced and segment again."
INPUT_REMOVED = "The input volume was removed; the run was cancelled."
UNFORESEEN = "Something unforeseen happened ({})."
REPORT_IT = "Copy the details and report them."
