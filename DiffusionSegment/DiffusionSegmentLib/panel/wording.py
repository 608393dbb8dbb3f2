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
