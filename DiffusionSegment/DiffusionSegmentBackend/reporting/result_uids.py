"""UIDs of the DICOM objects of a result: the same result has the same UIDs, whenever and wherever it is exported.

A transfer that is tried again then sends the same object, which an archive does not keep twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from uuid import UUID, uuid5

import numpy as np
from pydicom.dataset import Dataset

from ..schema.dataclass_json import to_json
from .case import Case

_NAMESPACE = UUID("5a3c1f0e-0b7d-5c55-9f0b-3c7f6e1d2a94")


def derived_uid(*parts: str) -> str:
    """A UID below 2.25 (PS3.5, B.2) that is the same for the same parts, and another for others."""
    return f"2.25.{uuid5(_NAMESPACE, json.dumps(parts)).int}"


def result_key(case: Case, images: Sequence[Dataset]) -> str:
    """What a result is made of, as a digest: images, model, options, software, voxels, and the reader's part in it.

    `case.labels` has the geometry of `images`. Edited labels give another key; so do labels that differ because another
    processor rounds otherwise, since DICOM allows one content for one UID.
    """
    software, labels = case.provenance.software, np.ascontiguousarray(case.labels.array)
    contents = {
        "series": str(images[0].SeriesInstanceUID),
        "images": sorted(str(image.SOPInstanceUID) for image in images),
        "software": [software.software, software.version, software.sha256],
        "model": case.provenance.plan.model,
        "options": to_json(dict(case.provenance.plan.session_key)),
        "labels": [labels.shape, hashlib.sha256(labels.astype("<i4").data).hexdigest()],
        "corrected": sorted(case.corrected),
        "reviewed": case.reviewed is not None,
    }
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()
