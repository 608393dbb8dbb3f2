"""Training step with one thread per sample, with the same gradients as for a batch.

Intra-op threads synchronise in every operation, which is slow on a busy machine; here, samples are synchronised in the
loss only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Sample = TypeVar("Sample")


def single_core_pool(workers: int) -> ThreadPoolExecutor:
    """A thread pool in which PyTorch operations use one core."""
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

    Args:
        network: The network; layers that mix samples (batch norm) are not supported.
        samples: Samples, or groups of samples.
        forward: Computes the outputs of one element of `samples`.
        losses: Computes named losses from the outputs of all elements.
        pool: Threads; None computes the elements in sequence.
    """
    map_samples: Callable[..., Iterable[Any]] = map if pool is None else pool.map
    outputs = list(map_samples(forward, samples))
    leaves = [tuple(tensor.detach().requires_grad_() for tensor in output) for output in outputs]
    values = losses(leaves)
    torch.autograd.backward(torch.stack(list(values.values())).sum())
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]

    def gradients_of(index: int) -> tuple[Tensor | None, ...]:
        pairs = [(o, leaf.grad) for o, leaf in zip(outputs[index], leaves[index], strict=True) if leaf.grad is not None]
        if not pairs:
            return (None,) * len(parameters)
        heads, gradients = zip(*pairs, strict=True)
        return torch.autograd.grad(heads, parameters, gradients, allow_unused=True)

    for sample_gradients in map_samples(gradients_of, range(len(outputs))):
        for parameter, gradient in zip(parameters, sample_gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
    return values
