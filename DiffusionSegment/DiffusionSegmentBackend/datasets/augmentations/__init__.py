"""Augmentation for what hospitals send: functions on batches of labelled CT patches, on the CPU or a GPU alike.

Every function takes a `PatchBatch` and an explicit generator. Those that change gray values answer with a new batch;
those that move anatomy answer with a displacement. Nothing is mirrored: organs have a side. `HospitalAugmentation`
puts them together.
"""

from .hospital import HospitalAugmentation
from .patch_batch import PatchBatch

__all__ = ["HospitalAugmentation", "PatchBatch"]
