"""Errors that a user can act on: a code, one line of what is wrong, and the next step.

The exit status follows from the code: 2 bad input, 3 missing weights or devices, 4 out of memory, 130 cancelled.
"""

from __future__ import annotations

import errno
from enum import StrEnum
from pathlib import Path


class ErrorCode(StrEnum):
    """What went wrong, as it appears on stderr and in the worker's messages."""

    INPUT_MISSING = "INPUT_MISSING"
    INPUT_UNREADABLE = "INPUT_UNREADABLE"
    INPUT_SHAPE = "INPUT_SHAPE"
    INPUT_VALUES = "INPUT_VALUES"
    GEOMETRY = "GEOMETRY"
    MODALITY = "MODALITY"
    BODY_PART_MISMATCH = "BODY_PART_MISMATCH"
    UNUSUAL_APPEARANCE = "UNUSUAL_APPEARANCE"
    OPTION = "OPTION"
    TRAINING_DATA = "TRAINING_DATA"
    CHECKPOINT = "CHECKPOINT"
    OUTPUT_UNWRITABLE = "OUTPUT_UNWRITABLE"
    DISK_FULL = "DISK_FULL"
    MODEL_UNKNOWN = "MODEL_UNKNOWN"
    WEIGHTS_MISSING = "WEIGHTS_MISSING"
    WEIGHTS_CORRUPT = "WEIGHTS_CORRUPT"
    NO_TORCH = "NO_TORCH"
    PACKAGE_MISSING = "PACKAGE_MISSING"
    PRESEGMENTER_FAILED = "PRESEGMENTER_FAILED"
    NO_DEVICE = "NO_DEVICE"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    OUT_OF_GPU_MEMORY = "OUT_OF_GPU_MEMORY"
    PROTOCOL = "PROTOCOL"
    BUSY = "BUSY"
    WORKER_DIED = "WORKER_DIED"
    TIME_LIMIT = "TIME_LIMIT"
    CANCELLED = "CANCELLED"
    SERVER_ADDRESS = "SERVER_ADDRESS"
    SERVER_UNREACHABLE = "SERVER_UNREACHABLE"
    SERVER_CERTIFICATE = "SERVER_CERTIFICATE"
    SERVER_TOKEN = "SERVER_TOKEN"
    SERVER_ANSWER = "SERVER_ANSWER"
    SERVER_LIMIT = "SERVER_LIMIT"
    SERVER_FULL = "SERVER_FULL"
    SESSION_LOST = "SESSION_LOST"
    INTERNAL = "INTERNAL"


_LONGEST = 600
_EXIT_STATUS = {
    ErrorCode.MODEL_UNKNOWN: 3,
    ErrorCode.WEIGHTS_MISSING: 3,
    ErrorCode.WEIGHTS_CORRUPT: 3,
    ErrorCode.NO_TORCH: 3,
    ErrorCode.PACKAGE_MISSING: 3,
    ErrorCode.NO_DEVICE: 3,
    ErrorCode.OUT_OF_MEMORY: 4,
    ErrorCode.OUT_OF_GPU_MEMORY: 4,
    ErrorCode.INTERNAL: 1,
    ErrorCode.WORKER_DIED: 1,
    ErrorCode.TIME_LIMIT: 1,
    ErrorCode.PRESEGMENTER_FAILED: 1,
    ErrorCode.CANCELLED: 130,
}


class DiffusionSegmentError(Exception):
    """A failure shown to the user: `message` says what is wrong, `hint` what to do next."""

    def __init__(self, code: ErrorCode, message: str, *, hint: str = "") -> None:
        self.code = code
        self.message = one_line(message)
        self.hint = hint
        super().__init__(self.message)

    @property
    def exit_status(self) -> int:
        """The process exit status that belongs to the code; 2 (bad input) unless another is named."""
        return _EXIT_STATUS.get(self.code, 2)

    def __str__(self) -> str:
        """`CODE: message. hint`, always a single line."""
        text = f"{self.code.value}: {self.message}"
        return one_line(text) + (f" {one_line(self.hint)}" if self.hint else "")


def one_line(text: str) -> str:
    """The text on one line of at most 600 letters; untrusted names may contain terminal escapes or bidi controls."""
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    return line if len(line) <= _LONGEST else line[:_LONGEST] + " ..."


def unknown_name(what: str, name: str, known: tuple[str, ...]) -> DiffusionSegmentError:
    """The refusal (OPTION) of a name that is not among the two or more `known`."""
    hint = f"Choose {', '.join(known[:-1])} or {known[-1]}."
    return DiffusionSegmentError(ErrorCode.OPTION, f"There is no {what} '{name}'.", hint=hint)


def missing_package(error: ModuleNotFoundError) -> DiffusionSegmentError:
    """The words for a Python package that could not be imported: NO_TORCH for PyTorch, PACKAGE_MISSING for others."""
    package = (error.name or "").partition(".")[0] or "of that name"
    code = ErrorCode.NO_TORCH if package == "torch" else ErrorCode.PACKAGE_MISSING
    return DiffusionSegmentError(code, f"The Python package {package} is missing.", hint="Install it and try again.")


def out_of_memory(subject: str = "") -> DiffusionSegmentError:
    """The error (OUT_OF_MEMORY) of a failed allocation; `subject` names what the memory was for."""
    purpose = f" for {subject}" if subject else ""
    return DiffusionSegmentError(
        ErrorCode.OUT_OF_MEMORY, f"There is too little memory{purpose}.", hint="Close programs, or crop the scan."
    )


def out_of_gpu_memory() -> DiffusionSegmentError:
    """The error (OUT_OF_GPU_MEMORY) of a failed allocation on a CUDA device."""
    return DiffusionSegmentError(
        ErrorCode.OUT_OF_GPU_MEMORY, "The graphics card has too little free memory.", hint="Choose the device cpu."
    )


class Cancelled(DiffusionSegmentError):
    """The user asked to stop; nothing was written."""

    def __init__(self) -> None:
        super().__init__(ErrorCode.CANCELLED, "Cancelled.", hint="Nothing was changed.")


def from_os_error(error: OSError, path: Path | str) -> DiffusionSegmentError:
    """The user's words for a failed write to `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiffusionSegmentError(
            ErrorCode.DISK_FULL,
            f"The disk is full: {path} could not be written.",
            hint="Free some space and run again.",
        )
    return DiffusionSegmentError(
        ErrorCode.OUTPUT_UNWRITABLE,
        f"{path} could not be written ({error.strerror or error}).",
        hint="Choose a folder that you may write to.",
    )
