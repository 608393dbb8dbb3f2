"""Sentences for tables and page: why a scan has no result. They contain no name, path or UID of a patient."""

from __future__ import annotations

from ..errors import ErrorCode

# A scan that the checks of the model refuse is not fit for it; all other codes are failures.
UNFIT = frozenset(
    code.value
    for code in (
        ErrorCode.MODALITY,
        ErrorCode.BODY_PART_MISMATCH,
        ErrorCode.UNUSUAL_APPEARANCE,
        ErrorCode.INPUT_SHAPE,
        ErrorCode.GEOMETRY,
    )
)
_SENTENCES = {
    ErrorCode.INPUT_MISSING: "Its files are missing.",
    ErrorCode.INPUT_UNREADABLE: "Its files are damaged or cannot be read.",
    ErrorCode.INPUT_SHAPE: "It is not a 3D scan.",
    ErrorCode.INPUT_VALUES: "Its values are not those of a scan.",
    ErrorCode.GEOMETRY: "Its slices do not lie on one grid.",
    ErrorCode.MODALITY: "It is of another modality than the model, or its values are not HU.",
    ErrorCode.BODY_PART_MISMATCH: "It shows another part of the body than the model segments.",
    ErrorCode.UNUSUAL_APPEARANCE: "The model does not recognise the organs in it.",
    ErrorCode.OUT_OF_MEMORY: "There was too little memory for it.",
    ErrorCode.OUT_OF_GPU_MEMORY: "There was too little memory on the graphics card for it.",
    ErrorCode.WORKER_DIED: "The process that segmented it ended, twice.",
    ErrorCode.TIME_LIMIT: "It did not end within the time limit, twice.",
    ErrorCode.DISK_FULL: "The disk was full.",
    ErrorCode.OUTPUT_UNWRITABLE: "Its result could not be written.",
}
_SENTENCE = {code.value: sentence for code, sentence in _SENTENCES.items()}


def reason_of(code: str) -> str:
    """The sentence for a code; empty for no code."""
    return _SENTENCE.get(code, f"The run failed ({code}).") if code else ""
