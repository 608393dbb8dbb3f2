"""Words for the panel."""

STAGES = {
    "load": "Loading the model",
    "prepare": "Preparing the scan",
    "bodypart": "Finding the place in the body",
    "features": "Reading the anatomy",
    "refine": "Drawing samples",
    "restore": "Bringing the result back",
    "correct": "Applying corrections",
    "alternatives": "Collecting samples",
    "deliver": "Handing over",
    "self_test": "Measuring this computer",
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
BUSY = "A run is under way."
UNDO = "Undo"
REDO = "Redo"
NOTHING_TO = "There is nothing to {}."
NO_REGIONS = "The model has no doubts that are worth a look."
NO_REGIONS_YET = "Regions that are likely wrong are listed here after a run."
NO_REGION = "Choose a region first: Next."
REVIEWED = "{} of {} regions reviewed, worst first"
NEXT_TIP = "Go to the next region (N)."
PREVIOUS_TIP = "Go to the region before (P)."
ACCEPT_TIP = "The region is right as it is; go on to the next."
FLAG_TIP = "The region needs another look; go on to the next."
CORRECT_TIP = "Open Segment Editor on this region's organ."
APPLY_TIP = "Let the model hear what you have painted: it repairs the surroundings, and keeps every painted voxel."
APPLIED = "Corrections applied in {:.1f} s. Not for diagnosis."
KEPT_NEWER = " What you painted meanwhile was kept; apply again to let the model hear it."
ALTERNATIVES_TIP = "Show the samples that the model drew: other answers that it holds possible."
ALTERNATIVE_OF = "{} of {}"
PICK_REGION_TIP = "Use this sample inside the region under review."
PICK_ORGAN_TIP = "Use this sample for the whole organ of the region under review."
NO_ALTERNATIVES = "Click Alternatives first."
UNCHANGED = "This sample does not differ here."

# Similar voxels
PLACE_POINT_TIP = "Then click a voxel in a slice view; the point can be dragged afterwards."
SIMILAR_FIRST = "Place a point: every voxel that looks alike to the model lights up."
SIMILAR_CLICK = "Click a voxel in a slice view."
SIMILAR_SHOWN = "Voxels at least {:.2f} alike are shown. Drag the point to look elsewhere."
SIMILAR_SEGMENT_TIP = "Make a new segment of the region around the point; other segments stay as they are."
NO_SIMILARITY = "Place a point first."
SIMILAR_MADE = "{}: {:.1f} mL. Not for diagnosis."

# Learn from this case
TEACH_WHAT = "Makes a model of your own, on top of the chosen one, from the segments that are visible."
TEACH_TIP = "Learn the visible segments; the new model stays on this computer."
NO_SEGMENTATION = "Segment the scan, or draw with Segment Editor, first."
NO_NAME = "Give the new model a name, such as my-model."
NAME_TAKEN = "There is a model '{}' already."
ANOTHER_NAME = "Give the new model another name."
TAUGHT = "The model {} has learnt {} in {:.0f} s and is chosen now. Not for diagnosis."

# Report and export
REPORT_TIP = "Write a page with volumes, doubts and what you reviewed, as HTML or PDF."
DICOM_TIP = "Write the organs as DICOM SEG that refers to the series that was segmented."
REPORT_TITLE = "Case report"
REPORT_FILES = "HTML (*.html);;PDF (*.pdf)"
DICOM_TITLE = "DICOM SEG"
DICOM_FILES = "DICOM (*.dcm)"
WRITTEN = "Written to {}."
WRITING = "Writing…"

STAGES |= {"teach": "Learning", "report": "Writing"}

# First use, self-test, import of models.
FIRST_USE = "Diffusion Segment: first use"
INSTALL_QUESTION = "Diffusion Segment needs Python packages that Slicer does not bring. Install them now?"
INSTALL_ROW = "{}: about {}"
INSTALL_ROW_UP_TO = "{}: about {}, with CUDA up to {}, by the extension PyTorch"
INSTALL_NOTE = "This takes minutes, once. Afterwards everything works without a network."
INSTALL = "Install"
NOT_NOW = "Not now"
SELF_TEST_TIP = "Show what the networks run on, and measure it for a second."
IMPORT_TIP = "Install a model from a zip file, or from a folder: choose its manifest.json."
IMPORT_TITLE = "Import weights"
IMPORT_FILTER = "Models (*.zip manifest.json)"
IMPORTED = "The model {} was installed."
SELF_TEST_DEVICE = "{}: {:.0f} billion operations a second"
SELF_TEST_NO_TORCH = "PyTorch is not installed."
SELF_TEST_TORCH = "PyTorch {} for {}"
SELF_TEST_DRIVER = "NVIDIA card: {}"
SELF_TEST_NO_DRIVER = "No NVIDIA card"
SELF_TEST_MEMORY = "{:.1f} GB of memory free"
SELF_TEST_MEMORY_UNKNOWN = "Free memory: unknown on this system"
SELF_TEST_MISSING = "Missing packages: {}"
SELF_TEST_VERSION = "Diffusion Segment {}, Python {}"

# The module's own page in Slicer.
HELP = (
    "Segments organs in CT with generative diffusion models (not diffusion MRI) and shows where the result is "
    "uncertain. Runs on this computer; nothing is sent over the network. For research, not for diagnosis."
)
ACKNOWLEDGEMENT = (
    "Builds on diffusion pretraining (Li et al. 2025), recycling training (Fu et al. 2023) and "
    "pre-segmentation sampling (Guo et al. 2022)."
)
