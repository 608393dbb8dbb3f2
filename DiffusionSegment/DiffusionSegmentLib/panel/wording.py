"""Words for the panel, in the language of the application; numbers and names are put in after the translation."""

from slicer.i18n import tr as _

STAGES = {
    "load": _("Loading the model"),
    "prepare": _("Preparing the scan"),
    "bodypart": _("Locating the body region"),
    "features": _("Extracting image features"),
    "refine": _("Drawing samples"),
    "restore": _("Resampling to the scan's voxels"),
    "correct": _("Applying corrections"),
    "alternatives": _("Collecting samples"),
    "deliver": _("Transferring the result"),
    "self_test": _("Testing this computer"),
}
DONE_OF = _("{done} of {total}")
SECONDS_LEFT = _("about {seconds} s left")
MINUTES_LEFT = _("about {minutes} min left")
SEGMENT = _("Segment")
CANCEL = _("Cancel")
CANCELLING = _("Cancelling…")
NO_INPUT = _("Choose an input volume first.")
NO_MODEL = _("No model is installed.")
READY = _("Segment the input volume with the chosen model.")
RUNNING = _("Stop the run; nothing will be changed.")
STARTING = _("Starting the segmentation process…")
CANCELLED = _("Cancelled. Nothing was changed.")
STOPPING = _("The run stops after its current step.")
UNKNOWN_MODEL = _("The model {model} is not installed; choose another.")
NO_RESULT = _("There is no result to show yet.")
SURFACES = _("Show the organs as surfaces in the 3D views.")
NO_OVERLAY = _("This overlay was not computed: tick Body coordinates under Advanced and segment again.")
INPUT_REMOVED = _("The input volume was removed; the run was cancelled.")
UNFORESEEN = _("An unexpected error occurred ({error}).")
SEGMENT_ANYWAY = _("To segment it anyway, tick “Segment even if the scan does not fit the model” under Advanced.")
REPORT_IT = _("Copy the details and report the bug.")
BUSY = _("A run is in progress.")
UNDO = _("Undo")
REDO = _("Redo")
NOTHING_TO_UNDO = _("There is nothing to undo.")
NOTHING_TO_REDO = _("There is nothing to redo.")
NO_REGIONS = _("The model names no region that needs review.")
NO_REGIONS_YET = _("Regions that may be wrong are listed here after a run.")
NO_REGION = _("Choose a region first, for example with Next.")
REVIEWED = _("{done} of {total} regions reviewed, worst first")
NEXT_TIP = _("Go to the next region (N).")
PREVIOUS_TIP = _("Go to the previous region (P).")
ACCEPT_TIP = _("The segmentation is correct here; go to the next region.")
FLAG_TIP = _("Flag this region for a second look; go to the next region.")
CORRECT_TIP = _("Edit this region's organ in Segment Editor.")
APPLY_TIP = _("Apply your edits; the model updates the surrounding region. Every voxel that you painted is kept.")
APPLIED = _("Corrections applied in {seconds:.1f} s. Not for diagnosis.")
KEPT_NEWER = _(" Edits made in the meantime were kept; apply again to include them.")
ALTERNATIVES_TIP = _("Show the samples that the model drew: other plausible segmentations.")
ALTERNATIVE_OF = _("{number} of {total}")
PICK_REGION_TIP = _("Use this sample inside the region under review.")
PICK_ORGAN_TIP = _("Use this sample for the whole organ of the region under review.")
NO_ALTERNATIVES = _("Click Alternatives first.")
UNCHANGED = _("This sample is the same as the segmentation here.")

# Model and organs
MODEL_TIP = _("Which organs are segmented, and in which part of the body.")
MODELS_FOUND = _("{found} of {total} models match. Press Enter to choose the first.")
NO_MODEL_FOUND = _("No model matches; the choice is unchanged.")
TITLE_AND_NAME = _("{title} ({name})")
MODALITY = _("Modality: {modality}")
ORGANS = _("Organs: {organs}")
AND_MORE = _("{organs} and {more} more")
QUALITY = _("Measured accuracy: mean Dice {dice:.2f} on {scans} scans")
NO_QUALITY = _("Measured accuracy: not stated")
TRAINED_ON = _("Trained on: {data}")
LICENCE = _("Licence: {licence}")
NOT_STATED = _("not stated")
NO_ORGAN = _("Tick at least one organ under Advanced.")
ALL_ORGANS_TIP = _("Segment every organ of the model.")
NO_ORGANS_TIP = _("Clear all organs, then tick those you need.")

# All frames of a sequence
ALL_FRAMES = _("All {total} frames")
FRAME = _("Frame {number} of {total} ({label})")
FRAMES_DONE = _("{done} of {total} frames segmented. Not for diagnosis.")
FRAMES_KEPT = _("Cancelled. {done} of {total} frames were finished and are kept.")
FRAME_FAILED = _("⚠ Frame {number} ({label}): {reason}")
MORE_FAILED = _("⚠ {more} more frames failed.")

# Similar voxels
PLACE_POINT_TIP = _("Click here, then click a voxel in a slice view; drag the point to move it.")
SIMILAR_FIRST = _("Place a point: all voxels that look similar to the model are highlighted.")
SIMILAR_CLICK = _("Click a voxel in a slice view.")
SIMILAR_SHOWN = _("Voxels with a similarity of at least {threshold:.2f} are shown. Drag the point to look elsewhere.")
SIMILAR_SEGMENT_TIP = _("Make a new segment from the similar region around the point; other segments are unchanged.")
NO_SIMILARITY = _("Place a point first.")
SIMILAR_MADE = _("{name}: {volume:.1f} mL. Not for diagnosis.")

# Learn from this case
FINE_TUNE_HELP = _("Trains a model of your own, based on the chosen one, from the visible segments.")
FINE_TUNE_TIP = _("Train on the visible segments; the new model stays on this computer.")
NO_SEGMENTATION = _("Segment the scan, or draw with Segment Editor, first.")
NO_NAME = _("Give the new model a name, such as my-model.")
NAME_TAKEN = _("A model named '{name}' already exists.")
ANOTHER_NAME = _("Choose another name for the new model.")
MODEL_SAVED = _("Model saved: {model}, trained on {organs} in {seconds:.0f} s; it is now selected. Not for diagnosis.")

# Whose scan it is
PATIENT = _("Patient: {name}")
PATIENT_ID = _("ID: {identifier}")
STUDY_DATE = _("Study: {date}")
SERIES = _("Series: {description}")

# Report and export
REPORT_TIP = _("Write a one-page report with volumes, uncertain regions and your review, as HTML or PDF.")
DICOM_TIP = _("Export the organs as DICOM SEG that references the segmented series.")
REPORT_TITLE = _("Case report")
REPORT_FILES = _("HTML (*.html);;PDF (*.pdf)")
DICOM_TITLE = _("DICOM SEG")
DICOM_FILES = _("DICOM (*.dcm)")
WRITTEN = _("Written to {path}.")
WRITING = _("Writing…")

STAGES |= {"teach": _("Training"), "report": _("Writing")}

# First use, self-test, import of models.
FIRST_USE = _("Diffusion Segment: first use")
INSTALL_QUESTION = _("Diffusion Segment needs Python packages that Slicer does not include. Install them now?")
INSTALL_ROW = _("{package}: about {size}")
INSTALL_ROW_UP_TO = _("{package}: about {size}, with CUDA up to {most}, by the extension PyTorch")
INSTALL_NOTE = _("This takes a few minutes, once. Afterwards no network connection is needed.")
INSTALL = _("Install")
NOT_NOW = _("Not now")
SELF_TEST_TIP = _("Show which device the networks run on, and measure its speed for a second.")
IMPORT_TIP = _("Install a model from a zip file, or from a folder: choose its manifest.json.")
IMPORT_TITLE = _("Import weights")
IMPORT_FILTER = _("Models (*.zip manifest.json)")
IMPORTED = _("The model {model} was installed.")
SELF_TEST_DEVICE = _("{device}: {gflops:.0f} billion operations per second")
SELF_TEST_NO_TORCH = _("PyTorch is not installed.")
SELF_TEST_TORCH = _("PyTorch {version} for {build}")
SELF_TEST_DRIVER = _("NVIDIA card: {driver}")
SELF_TEST_NO_DRIVER = _("No NVIDIA card")
SELF_TEST_MEMORY = _("{gigabytes:.1f} GB of memory free")
SELF_TEST_MEMORY_UNKNOWN = _("Free memory: unknown on this system")
SELF_TEST_MISSING = _("Missing packages: {packages}")
SELF_TEST_VERSION = _("Diffusion Segment {version}, Python {python}")

# The module's own page in Slicer.
HELP = _(
    "Segments organs in CT and MR with generative diffusion models (not diffusion MRI) and shows where the result is "
    "uncertain. Runs on this computer; nothing is sent over the network. For research, not for diagnosis."
)
ACKNOWLEDGEMENT = _(
    "Builds on diffusion pretraining (Li et al. 2025), recycling training (Fu et al. 2023) and "
    "pre-segmentation sampling (Guo et al. 2022)."
)

# Tables.
FOUND = _("{organs} organs in {seconds:.0f} s. Not for diagnosis.")
LOOK_FIRST = _("Look first at: {sentence}")
ORGAN_COLUMNS = (
    _("Organ"),
    _("Volume (mL)"),
    _("90 % interval (mL)"),
    _("Confidence"),
    _("Review"),
    _("Lock"),
)
ORGAN_COLUMN_TIPS = (
    _("Tick to show the organ in the views."),
    _("Volume of the last result, in mL; edits count once they are applied."),
    _("The model expects the true volume in this interval with a probability of 90 %."),
    _("Mean probability that the model gives to the organ inside its segment."),
    _("Your review of the organ's regions."),
    _("A locked organ changes only where you paint, not with corrections or new results."),
)
ORGAN_TIP = _("{organ}: {volume} mL, 90 % interval {interval} mL, confidence {confidence}")
INTERVAL = _("{low} to {high}")
BEGUN = _("in progress")
DONE = _("done")
FLAGGED = _("flagged")
REGION_COLUMNS = ("", _("Where to look"), _("State"))
MEGABYTES = _("{size} MB")
GIGABYTES = _("{size:g} GB")
