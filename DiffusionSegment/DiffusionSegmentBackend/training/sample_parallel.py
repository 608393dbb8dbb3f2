"""A training step that gives each sample a thread of its own: exact, and quick on a few cores that others use too.

Threads that share every single operation wait for the slowest of them some hundred times a step; on a busy machine that
costs more than the second core brings. Samples meet only in the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor, nn

Sample = TypeVar("Sample")


def one_thread_each(workers: int) -> ThreadPoolExecutor:
    """Threads in which PyTorch's operations use one core."""
    return ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))


def backward_by_sample(
    network: nn.Module,
    samples: Sequence[Sample],
    *,
    forward: Callable[[Sample], tuple[Tensor, ...]],
    losses: Callable[[list[tuple[Tensor, ...]]], dict[str, Tensor]],
    pool: ThreadPoolExecutor | None = None,
) -> dict[str, Tensor]:
    """Named losses of a batch; the gradient of their sum is added to the parameters' `grad`.

    `forward` runs on one sample (or group of samples), `losses` on the outputs of all of them. Layers that mix samples
    (batch norm) are not for this. Without a `pool` the samples are computed in turn.
    """
    in_each: Callable[..., Iterable] = map if pool is None else pool.map
    outputs = list(in_each(forward, samples))
    leaves = [tuple(tensor.detach().requires_grad_() for tensor in output) for output in outputs]
    values = losses(leaves)
    torch.stack(list(values.values())).sum().backward()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]

    def pull(index: int) -> tuple[Tensor | None, ...]:
        pairs = [(o, leaf.grad) for o, leaf in zip(outputs[index], leaves[index], strict=True) if leaf.grad is not None]
        if not pairs:
            return (None,) * len(parameters)
        heads, gradients = zip(*pairs, strict=True)
        return torch.autograd.grad(heads, parameters, gradients, allow_unused=True)

    for found in in_each(pull, range(len(outputs))):
        for parameter, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
    return values
