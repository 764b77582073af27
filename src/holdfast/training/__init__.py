"""Training: FedAvg over groups of clients, many models at once, the same result in any order."""

from holdfast.training.ensemble import train_ensemble, train_single, training_fingerprint
from holdfast.training.fedavg import PRESETS, FedAvg, preset
from holdfast.training.models import MODELS, Model, ModelFactory, model_factory
from holdfast.training.trainer import Intervene, Trainer, make_trainer

__all__ = [
    "MODELS",
    "PRESETS",
    "FedAvg",
    "Intervene",
    "Model",
    "ModelFactory",
    "Trainer",
    "make_trainer",
    "model_factory",
    "preset",
    "train_ensemble",
    "train_single",
    "training_fingerprint",
]
