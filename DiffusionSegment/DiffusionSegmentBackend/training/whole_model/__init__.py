"""`diffusion-segment train --data DIR -o MODEL_DIR --minutes N`: train a model from labelled scans in one command."""

from .options import ModelTrainingOptions
from .run import train_model

__all__ = ["ModelTrainingOptions", "train_model"]
