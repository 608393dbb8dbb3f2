"""`diffusion-segment train --data DIR -o MODEL_DIR --minutes N`: train a model from labelled scans in one command."""

from .longer_training import LongerTrainingOptions, train_longer
from .options import ModelTrainingOptions
from .run import train_model

__all__ = ["LongerTrainingOptions", "ModelTrainingOptions", "train_longer", "train_model"]
