"""Average the weights of several runs that started from the same weights.

Model soups (Wortsman et al. 2022, arXiv 2203.05482).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ..errors import DiffusionSegmentError, ErrorCode
from ..models.manifest import ModelDescription, read_description
from ..models.model import load_network, save_network

# The networks that the training of the probe changes.
AVERAGED = ("backbone", "probe")


def average_models(folders: Sequence[Path], output: Path) -> tuple[str, ...]:
    """Write the average weights of backbone and probe into the model in `output`; returns the names of the networks.

    A network that `output` shares with another model is skipped. All weights are read before any is written.

    Raises:
        DiffusionSegmentError: OPTION for fewer than two models or different networks, WEIGHTS_MISSING, WEIGHTS_CORRUPT.
    """
    if len(folders) < 2:
        raise DiffusionSegmentError(ErrorCode.OPTION, "One model has no mean.", hint="Name at least two models.")
    target = read_description(output)
    models = [read_description(folder) for folder in folders]
    names = tuple(name for name in AVERAGED if name in target.networks and target.networks[name].model is None)
    means = {name: _mean(target, models, name) for name in names}
    for name, network in means.items():
        save_network(output, name, network, architecture=dict(target.networks[name].architecture))
    return names


@torch.no_grad()
def _mean(target: ModelDescription, models: Sequence[ModelDescription], name: str) -> nn.Module:
    built = target.networks[name].architecture
    for model in models:
        if name not in model.networks or model.networks[name].architecture != built:
            raise DiffusionSegmentError(
                ErrorCode.OPTION,
                f"The {name} in {model.folder} is another network than the one in {target.folder}.",
                hint="Average trainings of one network, started from the same weights.",
            )
    networks = [load_network(model, name) for model in models]
    states = [network.state_dict() for network in networks]
    networks[0].load_state_dict({key: torch.stack([s[key] for s in states]).mean(dim=0) for key in states[0]})
    return networks[0]
