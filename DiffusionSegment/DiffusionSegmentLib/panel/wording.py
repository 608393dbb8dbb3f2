"""Words for the panel, in the language of the application; numbers and names are put in after the translation."""

from slicer.i18n import tr as _

STAGES = {
    "load": _("Loading the model"),
    "prepare": _("Preparing the scan"),
    "bodypart": _("Finding the place in the body"),
    "features": _("Reading the anatomy"),
    "refine": _("Drawing samples"),
    "restore": _("Bringing the result back"),
    "correct": _("Applying corrections"),
    "alternatives": _("Collecting samples"),
    "deliver": _("Handing over"),
    "self_test": _("Measuring this computer"),
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
SURFACES = _("Make surfaces of the organs for the 3D views.")
NO_OVERLAY = _("This overlay was not made: tick body coordinates under Advanced and segment again.")
INPUT_REMOVED = _("The input volume was removed; the run was cancelled.")
UNFORESEEN = _("Something unforeseen happened ({error}).")
REPORT_IT = _("Copy the details and report them.")
BUSY = _("A run is under way.")
UNDO = _("Undo")
REDO = _("Redo")
NOTHING_TO_UNDO = _("There is nothing to undo.")
NOTHING_TO_REDO = _("There is nothing to redo.")
NO_REGIONS = _("The model has no doubts that are worth a look.")
NO_REGIONS_YET = _("Regions that are likely wrong are listed here after a run.")
NO_REGION = _("Choose a region first: Next.")
REVIEWED = _("{done} of {total} regions reviewed, worst first")
NEXT_TIP = _("Go to the next region (N).")
PREVIOUS_TIP = _("Go to the region before (P).")
ACCEPT_TIP = _("The region is right as it is; go on to the next.")
FLAG_TIP = _("The region needs another look; go on to the next.")
CORRECT_TIP = _("Open Segment Editor on this region's organ.")
APPLY_TIP = _("Let the model hear what you have painted: it repairs the surroundings, and keeps every painted voxel.")
APPLIED = _("Corrections applied in {seconds:.1f} s. Not for diagnosis.")
KEPT_NEWER = _(" What you painted meanwhile was kept; apply again to let the model hear it.")
ALTERNATIVES_TIP = _("Show the samples that the model drew: other answers that it holds possible.")
ALTERNATIVE_OF = _("{number} of {total}")
PICK_REGION_TIP = _("Use this sample inside the region under review.")
PICK_ORGAN_TIP = _("Use this sample for the whole organ of the region under review.")
NO_ALTERNATIVES = _("Click Alternatives first.")
UNCHANGED = _("This sample does not differ here.")

# Model and organs
MODEL_TIP = _("What to look for, and in which part of the body.")
MODELS_FOUND = _("{found} of {total} models fit. Enter chooses the first.")
NO_MODEL_FOUND = _("No model fits these words; the choice stays as it is.")
TITLE_AND_NAME = _("{title} ({name})")
MODALITY = _("Modality: {modality}")
ORGANS = _("Organs: {organs}")
AND_MORE = _("{organs} and {more} more")
QUALITY = _("Measured quality: mean Dice {dice:.2f} on {scans} scans")
NO_QUALITY = _("Measured quality: not told")
TRAINED_ON = _("Trained on: {data}")
LICENCE = _("Licence: {licence}")
NOT_TOLD = _("not told")
NO_ORGAN = _("Tick at least one organ under Advanced.")
ALL_ORGANS_TIP = _("Segment every organ of the model.")
NO_ORGANS_TIP = _("Take every tick away, to tick a few organs.")

# All frames of a sequence
ALL_FRAMES = _("All {total} frames")
FRAME = _("Frame {number} of {total} ({label})")
FRAMES_DONE = _("{done} of {total} frames segmented. Not for diagnosis.")
FRAMES_KEPT = _("Cancelled. Of the frames, {done} of {total} were finished and are kept.")
FRAME_FAILED = _("⚠ Frame {number} ({label}): {reason}")
MORE_FAILED = _("⚠ {more} more frames failed.")

# Similar voxels
PLACE_POINT_TIP = _("Then click a voxel in a slice view; the point can be dragged afterwards.")
SIMILAR_FIRST = _("Place a point: every voxel that looks alike to the model lights up.")
SIMILAR_CLICK = _("Click a voxel in a slice view.")
SIMILAR_SHOWN = _("Voxels at least {threshold:.2f} alike are shown. Drag the point to look elsewhere.")
SIMILAR_SEGMENT_TIP = _("Make a new segment of the region around the point; other segments stay as they are.")
NO_SIMILARITY = _("Place a point first.")
SIMILAR_MADE = _("{name}: {volume:.1f} mL. Not for diagnosis.")

# Learn from this case
TEACH_WHAT = _("Makes a model of your own, on top of the chosen one, from the segments that are visible.")
TEACH_TIP = _("Learn the visible segments; the new model stays on this computer.")
NO_SEGMENTATION = _("Segment the scan, or draw with Segment Editor, first.")
NO_NAME = _("Give the new model a name, such as my-model.")
NAME_TAKEN = _("There is a model '{name}' already.")
ANOTHER_NAME = _("Give the new model another name.")
TAUGHT = _("The model {model} has learnt {organs} in {seconds:.0f} s and is chosen now. Not for diagnosis.")

# Report and export
REPORT_TIP = _("Write a page with volumes, doubts and what you reviewed, as HTML or PDF.")
DICOM_TIP = _("Write the organs as DICOM SEG that refers to the series that was segmented.")
REPORT_TITLE = _("Case report")
REPORT_FILES = _("HTML (*.html);;PDF (*.pdf)")
DICOM_TITLE = _("DICOM SEG")
DICOM_FILES = _("DICOM (*.dcm)")
WRITTEN = _("Written to {path}.")
WRITING = _("Writing…")

STAGES |= {"teach": _("Learning"), "report": _("Writing")}

# First use, self-test, import of models.
FIRST_USE = _("Diffusion Segment: first use")
INSTALL_QUESTION = _("Diffusion Segment needs Python packages that Slicer does not bring. Install them now?")
INSTALL_ROW = _("{package}: about {size}")
INSTALL_ROW_UP_TO = _("{package}: about {size}, with CUDA up to {most}, by the extension PyTorch")
INSTALL_NOTE = _("This takes minutes, once. Afterwards everything works without a network.")
INSTALL = _("Install")
NOT_NOW = _("Not now")
SELF_TEST_TIP = _("Show what the networks run on, and measure it for a second.")
IMPORT_TIP = _("Install a model from a zip file, or from a folder: choose its manifest.json.")
IMPORT_TITLE = _("Import weights")
IMPORT_FILTER = _("Models (*.zip manifest.json)")
IMPORTED = _("The model {model} was installed.")
SELF_TEST_DEVICE = _("{device}: {gflops:.0f} billion operations a second")
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
ORGAN_COLUMNS = (_("Organ"), _("Volume"), _("90 % interval"), _("Sure"), _("Review"), _("Lock"))
ORGAN_COLUMN_TIPS = (
    _("Tick to show the organ in the views."),
    _("Volume of the segmentation as delivered."),
    _("Interval that holds the volume with 90 % probability."),
    _("Mean probability inside the organ."),
    _("What you said of the organ's regions."),
    _("A locked organ is changed by painting alone, neither by corrections nor by new results."),
)
MILLILITRES = _("{volume} mL")
INTERVAL = _("{low} to {high}")
BEGUN = _("begun")
DONE = _("done")
FLAGGED = _("flagged")
REGION_COLUMNS = ("", _("Where to look"), _("State"))
MEGABYTES = _("{size} MB")
GIGABYTES = _("{size:g} GB")
