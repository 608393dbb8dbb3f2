"""Augmentation of CT patches for clinical variation: contrast phase, pathology, artefacts, reconstruction.

Every function takes a `PatchBatch` and a generator, and works on CPU and GPU. Intensity transforms return a new batch,
spatial transforms a displacement. There is no flipping, as organs are left or right. `HospitalAugmentation` combines
them; `appearance` in the parent package is for any modality.
"""

from .hospital import HospitalAugmentation
from .patch_batch import PatchBatch

__all__ = ["HospitalAugmentation", "PatchBatch"]
