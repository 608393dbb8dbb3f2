"""Texts of the panel in the language of the application; numbers and names are inserted after the translation."""

from slicer.i18n import tr as _

STAGES: dict[str, str] = {
    "load": _("Loading the model"),
    "presegmenter": _("Running the model of another program"),
    "prepare": _("Preparing the scan"),
    "bodypart": _("Locating the body region"),
    "features": _("Extracting image features"),
    "refine": _("Drawing samples"),
    "restore": _("Resampling to the scan's voxels"),
    "correct": _("Applying corrections"),
    "alternatives": _("Finding alternatives"),
    "deliver": _("Transferring the result"),
    "self_test": _("Testing this computer"),
    "fine_tune": _("Training"),
    "report": _("Writing"),
    "upload": _("Sending the scan to the server"),
    "download": _("Receiving the result"),
}
WAITING_STAGES: dict[str, str] = {
    "queue": _("Waiting for the server; {ahead} ahead"),
    "reconnect": _("The connection to the server is lost; trying again…"),
}
DONE_OF: str = _("{done} of {total}")
SECONDS_LEFT: str = _("about {seconds} s left")
MINUTES_LEFT: str = _("about {minutes} min left")
SEGMENT: str = _("Segment")
CANCEL: str = _("Cancel")
CANCELLING: str = _("Cancelling…")
NO_INPUT: str = _("Choose an input volume first.")
NO_MODEL: str = _("No model is installed.")
READY: str = _("Segment the input volume with the chosen model.")
RUNNING: str = _("Stop the run; nothing will be changed.")
STARTING: str = _("Starting the segmentation process…")
CANCELLED: str = _("Cancelled. Nothing was changed.")
STOPPING: str = _("The run stops after its current step.")
UNKNOWN_MODEL: str = _("The model {model} is not installed; choose another.")
NO_RESULT: str = _("There is no result to show yet.")
SURFACES: str = _("Show the organs as surfaces in the 3D views.")
NO_OVERLAY: str = _("This overlay was not computed: tick Body coordinates under Advanced and segment again.")
INPUT_REMOVED: str = _("The input volume was removed; the run was cancelled.")
UNEXPECTED_ERROR: str = _("An unexpected error occurred ({error}).")
SEGMENT_ANYWAY: str = _("To segment it anyway, tick “Segment even if the scan does not fit the model” under Advanced.")
REPORT_IT: str = _("Copy the details and report the bug.")
BUSY: str = _("A run is in progress.")
UNDO: str = _("Undo")
REDO: str = _("Redo")
NOTHING_TO_UNDO: str = _("There is nothing to undo.")
NOTHING_TO_REDO: str = _("There is nothing to redo.")
NO_REGIONS: str = _("The model names no region that needs review.")
NO_REGIONS_YET: str = _("Regions that may be wrong are listed here after a run.")
NO_REGION: str = _("Choose a region first, for example with Next.")
REVIEWED: str = _("{done} of {total} regions reviewed, worst first")
NEXT_TIP: str = _("Go to the next region (N).")
PREVIOUS_TIP: str = _("Go to the previous region (P).")
ACCEPT_TIP: str = _("The segmentation is correct here; go to the next region.")
FLAG_TIP: str = _("Flag this region for a second look; go to the next region.")
CORRECT_TIP: str = _("Edit this region's organ in Segment Editor.")
APPLY_TIP: str = _("Apply your edits; the model updates the surrounding region. Every voxel that you painted is kept.")
APPLIED: str = _("Corrections applied in {seconds:.1f} s. Not for diagnosis.")
KEPT_NEWER: str = _(" Edits made in the meantime were kept; apply again to include them.")
SHOW_ALTERNATIVES: str = _("Alternatives")
HIDE_ALTERNATIVES: str = _("Hide alternatives")
ALTERNATIVES_TIP: str = _(
    "Outline other plausible labels of the region under review (keys 1 to 4), the most likely first."
)
STEP_ALTERNATIVE_TIP: str = _("Outline another alternative of the region.")
ALTERNATIVE_OF: str = _("{number} of {total}")
ALTERNATIVE_TEXT: str = _("{sentence} Probability {percent:.0f} %.")
NO_ALTERNATIVE_HERE: str = _("No other labels are plausible in this region.")
UNKNOWN_ALTERNATIVES: str = _("The alternatives of this region are unknown until corrections are applied.")
USE_ALTERNATIVE_TIP: str = _("Use the outlined labels in this region; nothing else changes.")
NO_ALTERNATIVES: str = _("Click Alternatives first.")
UNCHANGED: str = _("This alternative is the same as the segmentation here.")

# Model and organs
MODEL_TIP: str = _("Which organs are segmented, and in which part of the body.")
MODELS_MATCHING: str = _("{matching} of {total} models match. Press Enter to choose the first.")
NO_MATCHING_MODEL: str = _("No model matches; the choice is unchanged.")
TITLE_AND_NAME: str = _("{title} ({name})")
MODALITY: str = _("Modality: {modality}")
ORGANS: str = _("Organs: {organs}")
AND_MORE: str = _("{organs} and {more} more")
QUALITY: str = _("Measured accuracy: mean Dice {dice:.2f} on {scans} scans")
NO_QUALITY: str = _("Measured accuracy: not stated")
TRAINED_ON: str = _("Trained on: {data}")
LICENCE: str = _("Licence: {licence}")
NOT_STATED: str = _("not stated")
NO_ORGAN: str = _("Tick at least one organ under Advanced.")
ALL_ORGANS_TIP: str = _("Segment every organ of the model.")
NO_ORGANS_TIP: str = _("Clear all organs, then tick those you need.")

# Review of a segmentation from another source
REVIEW_GIVEN_TIP: str = _("Show where this segmentation is probably wrong; it is not changed.")
PRESEGMENT_TIP: str = _("Segment the scan with a model folder of nnU-Net v2 or a MONAI bundle, to be reviewed.")
PRESEGMENTER_TITLE: str = _("Folder of the model (nnU-Net v2 or MONAI bundle)")
PRESEGMENTED: str = _("{name} is in the scene. Review this segmentation shows where it is probably wrong.")
NO_GIVEN: str = _("Choose a segmentation first.")
MATCH_COLUMNS: tuple[str, ...] = (_("Segment"), _("Organ"))
LEFT_AS_IT_IS: str = _("leave as it is")
MATCHED: str = _("{matched} of {total} segments are organs of the model")
MATCHED_BY_CODE: str = _("Matched by its code.")
MATCHED_BY_NAME: str = _("Matched by its name.")
NOT_MATCHED: str = _("No organ of the model has this code or name; the segment is not reviewed.")
REVIEW_SUMMARY: str = _("{organs} organs of {name} reviewed in {seconds:.0f} s. Not for diagnosis.")

# All frames of a sequence
ALL_FRAMES: str = _("All {total} frames")
FRAME: str = _("Frame {number} of {total} ({label})")
FRAMES_DONE: str = _("{done} of {total} frames segmented. Not for diagnosis.")
FRAMES_KEPT: str = _("Cancelled. {done} of {total} frames were finished and are kept.")
FRAME_FAILED: str = _("⚠ Frame {number} ({label}): {reason}")
MORE_FAILED: str = _("⚠ {more} more frames failed.")

# Similar voxels
PLACE_POINT_TIP: str = _("Click here, then click a voxel in a slice view; drag the point to move it.")
SIMILAR_FIRST: str = _("Place a point: all voxels that look similar to the model are highlighted.")
SIMILAR_CLICK: str = _("Click a voxel in a slice view.")
SIMILAR_SHOWN: str = _(
    "Voxels with a similarity of at least {threshold:.2f} are shown. Drag the point to look elsewhere."
)
SIMILAR_SEGMENT_TIP: str = _(
    "Make a new segment from the similar region around the point; other segments are unchanged."
)
NO_SIMILARITY: str = _("Place a point first.")
SIMILAR_MADE: str = _("{name}: {volume:.1f} mL. Not for diagnosis.")

# Learn from this case
FINE_TUNE_HELP: str = _("Trains a model of your own, based on the chosen one, from the visible segments.")
FINE_TUNE_TIP: str = _("Train on the visible segments; the new model stays on this computer.")
NO_SEGMENTATION: str = _("Segment the scan, or draw with Segment Editor, first.")
NO_NAME: str = _("Give the new model a name, such as my-model.")
NAME_TAKEN: str = _("A model named '{name}' already exists.")
ANOTHER_NAME: str = _("Choose another name for the new model.")
MODEL_SAVED: str = _(
    "Model saved: {model}, trained on {organs} in {seconds:.0f} s; it is now selected. Not for diagnosis."
)

# Header of the scan
PATIENT: str = _("Patient: {name}")
PATIENT_ID: str = _("ID: {identifier}")
STUDY_DATE: str = _("Study: {date}")
SERIES: str = _("Series: {description}")

# Report and export
REPORT_TIP: str = _("Write a one-page report with volumes, uncertain regions and your review, as HTML or PDF.")
DICOM_TIP: str = _("Export the organs as DICOM SEG that references the segmented series.")
REPORT_TITLE: str = _("Case report")
REPORT_FILES: str = _("HTML (*.html);;PDF (*.pdf)")
DICOM_TITLE: str = _("DICOM SEG")
DICOM_FILES: str = _("DICOM (*.dcm)")
WRITTEN: str = _("Written to {path}.")
WRITING: str = _("Writing…")

# First use, self-test, import of models.
FIRST_USE: str = _("Diffusion Segment: first use")
INSTALL_QUESTION: str = _("Diffusion Segment needs Python packages that Slicer does not include. Install them now?")
INSTALL_ROW: str = _("{package}: about {size}")
INSTALL_ROW_UP_TO: str = _("{package}: about {size}, with CUDA up to {most}, by the extension PyTorch")
INSTALL_NOTE: str = _("This takes a few minutes, once. Afterwards no network connection is needed.")
INSTALL: str = _("Install")
NOT_NOW: str = _("Not now")
SELF_TEST_TIP: str = _("Show which device the networks run on, and measure its speed for a second.")
IMPORT_TIP: str = _("Install a model from a zip file, or from a folder: choose its manifest.json.")
IMPORT_TITLE: str = _("Import weights")
IMPORT_FILTER: str = _("Models (*.zip manifest.json)")
IMPORTED: str = _("The model {model} was installed.")
SELF_TEST_DEVICE: str = _("{device}: {gflops:.0f} billion operations per second")
SELF_TEST_NO_TORCH: str = _("PyTorch is not installed.")
SELF_TEST_TORCH: str = _("PyTorch {version} for {build}")
SELF_TEST_DRIVER: str = _("NVIDIA card: {driver}")
SELF_TEST_NO_DRIVER: str = _("No NVIDIA card")
SELF_TEST_MEMORY: str = _("{gigabytes:.1f} GB of memory free")
SELF_TEST_MEMORY_UNKNOWN: str = _("Free memory: unknown on this system")
SELF_TEST_MISSING: str = _("Missing packages: {packages}")
SELF_TEST_VERSION: str = _("Diffusion Segment {version}, Python {python}")

# Server.
RUN_ON: tuple[str, str] = (_("This computer"), _("A server"))
RUN_ON_TIP: str = _("Where scans are segmented. A server receives the voxels of the scan, but no patient data.")
SERVER_REMEMBER_TIP: str = _("Keep address and token in a file that only you can read: {path}")
TEST_CONNECTION_TIP: str = _("Ask the server for its version and models; no scan is sent.")
TESTING_CONNECTION: str = _("Testing the connection…")
SERVER_FINE: str = _("Connected: version {version}, device {device}, {count} models.")
SERVER_FORGOTTEN: str = _("The connection ended without an answer.")

# Help page of the module.
HELP: str = _(
    "Segments organs in CT and MR with generative diffusion models (not diffusion MRI) and shows where the result is "
    "uncertain. Runs on this computer; nothing is sent over the network unless you choose a server. For research, not "
    "for diagnosis."
)
ACKNOWLEDGEMENT: str = _(
    "Builds on diffusion pretraining (Li et al. 2025), recycling training (Fu et al. 2023) and "
    "pre-segmentation sampling (Guo et al. 2022)."
)

# Tables.
RUN_SUMMARY: str = _("{organs} organs in {seconds:.0f} s. Not for diagnosis.")
LOOK_FIRST: str = _("Look first at: {sentence}")
ORGAN_COLUMNS: tuple[str, ...] = (
    _("Organ"),
    _("Volume (mL)"),
    _("90 % interval (mL)"),
    _("Confidence"),
    _("Review"),
    _("Lock"),
)
ORGAN_COLUMN_TIPS: tuple[str, ...] = (
    _("Tick to show the organ in the views."),
    _("Volume of the last result, in mL; edits count once they are applied."),
    _("The model expects the true volume in this interval with a probability of 90 %."),
    _("Mean probability that the model gives to the organ inside its segment."),
    _("Your review of the organ's regions."),
    _("A locked organ changes only where you paint, not with corrections or new results."),
)
ORGAN_TIP: str = _("{organ}: {volume} mL, 90 % interval {interval} mL, confidence {confidence}")
MARGIN_TIP: str = _(
    "Within {mm} mm of the segment lie {contained} % of the organ in {coverage} % of {scans} scans; {missed} missed."
)
INTERVAL: str = _("{low} to {high}")
BEGUN: str = _("in progress")
DONE: str = _("done")
FLAGGED: str = _("flagged")
REGION_COLUMNS: tuple[str, ...] = ("", _("Where to look"), _("State"))
MEGABYTES: str = _("{size} MB")
GIGABYTES: str = _("{size:g} GB")
