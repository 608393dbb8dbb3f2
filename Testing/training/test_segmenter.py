"""Training of the second-generation network: loss, exact resumption, and prediction of whole scans."""

from __future__ import annotations

import errno
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.datasets.patch_sampler import NO_AUGMENTATION, Augmentation, PatchSampler, TrainingSet
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.networks.segmenter import Segmenter
from DiffusionSegmentBackend.training.loop import Budget, RunOptions, Training
from DiffusionSegmentBackend.training.sample_parallel import single_core_pool
from DiffusionSegmentBackend.training.segmenter import SegmenterRecipe, SegmenterStep, train_segmenter
from DiffusionSegmentBackend.training.whole_scan import scan_labels, whole_scan_probabilities
from fixtures.segmenter_data import CHANNELS, CLASSES, LEFT, RIGHT, STRIDE, WINDOW, small_volume

RECIPE = SegmenterRecipe(patch=(16, 32, 32))
BUDGET = Budget(steps=6, learning_rate=3e-3, ema_decay=0.9)


def new_network(*, fine: str = "path", stride: tuple[int, int, int] = STRIDE) -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(CLASSES, channels=CHANNELS, stride=stride, fine=fine, fine_channels=4)


def run(
    folder: Path,
    *,
    steps: int = 6,
    resume: bool = False,
    recipe: SegmenterRecipe = RECIPE,
    network: Segmenter | None = None,
    sets: list[TrainingSet] | None = None,
    augmentation: Augmentation | None = None,
    learning_rate: float = 3e-3,
) -> Segmenter:
    return train_segmenter(
        network or new_network(),
        sets or [TrainingSet([small_volume("a"), small_volume("b", seed=1)])],
        window=WINDOW,
        recipe=recipe,
        augmentation=augmentation or Augmentation(),
        run=RunOptions(budget=replace(BUDGET, steps=steps, learning_rate=learning_rate), folder=folder, resume=resume),
    )


def gradients_of(recipe: SegmenterRecipe, *, threads: int) -> tuple[dict[str, float], list[torch.Tensor]]:
    network = new_network().train()
    sampler = PatchSampler(
        [TrainingSet([small_volume()])],
        shape=recipe.shape(network),
        window=WINDOW,
        augmentation=NO_AUGMENTATION,
        seed=0,
    )
    step = SegmenterStep(network, recipe, BUDGET)
    batch = sampler.batch(0, recipe.batch)
    if threads:
        with single_core_pool(threads) as pool:
            values = step.gradients(batch, 0, pool)
    else:
        values = step.gradients(batch, 0)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
    return {name: float(value.detach()) for name, value in values.items()}, gradients


def test_one_thread_per_sample_gives_the_gradient_of_the_batch() -> None:
    recipe = replace(RECIPE, batch=3)
    batched, threaded = gradients_of(recipe, threads=0), gradients_of(recipe, threads=2)
    assert batched[0] == pytest.approx(threaded[0], rel=1e-4)
    assert set(batched[0]) == {"labels", "trunk"}
    total = torch.stack([g.norm() for g in batched[1]]).norm()
    difference = torch.stack([(a - b).norm() for a, b in zip(batched[1], threaded[1], strict=True)]).norm()
    assert float(total) > 0.01
    assert float(difference / total) < 1e-3


def test_denoised_patches_train_the_velocity_head() -> None:
    values, _ = gradients_of(replace(RECIPE, denoising_share=1.0), threads=0)
    assert set(values) == {"denoising"}
    mixed, gradients = gradients_of(replace(RECIPE, batch=8, denoising_share=0.5), threads=2)
    assert set(mixed) == {"labels", "trunk", "denoising"}
    named = dict(zip((n for n, _ in new_network().named_parameters()), gradients, strict=True))
    assert float(named["velocity_head.weight"].abs().max()) > 0
    assert float(named["head.weight"].abs().max()) > 0


def test_scans_without_labels_are_denoised() -> None:
    network = new_network()
    volumes = [small_volume("free", drawn=frozenset())]
    sampler = PatchSampler(
        [TrainingSet(volumes)], shape=RECIPE.shape(network), window=WINDOW, augmentation=NO_AUGMENTATION, seed=0
    )
    assert set(SegmenterStep(network, RECIPE, BUDGET).gradients(sampler.batch(0, 2), 0)) == {"denoising"}


def test_a_resumed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    straight = run(tmp_path / "straight", steps=6)
    path = tmp_path / "stopped"
    network = new_network()
    training = Training(network, replace(BUDGET, steps=6), path)
    # The learning rate follows the share of the whole budget, so stop in the middle of the same budget.
    step = SegmenterStep(network, RECIPE, BUDGET)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    sampler = PatchSampler(
        [TrainingSet([small_volume("a"), small_volume("b", seed=1)])],
        shape=RECIPE.shape(network),
        window=WINDOW,
        augmentation=Augmentation(),
        seed=0,
    )

    class Stopped(Exception):
        pass

    def gradients(_: float) -> dict[str, torch.Tensor]:
        if training.step == 3:
            training.save()
            raise Stopped
        return step.gradients(sampler.batch(training.step, 2), training.step)

    with pytest.raises(Stopped):
        training.run_steps(gradients, title="stopped", quiet=True)
    resumed = run(path, steps=6, resume=True)
    for (name, a), b in zip(straight.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.slow
def test_it_learns_which_organ_is_on_which_side(tmp_path: Path) -> None:
    volume = small_volume("a")
    trained = run(tmp_path, steps=120, augmentation=NO_AUGMENTATION, learning_rate=2e-2)
    probabilities = whole_scan_probabilities(trained, volume, RECIPE)
    assert probabilities.shape == (CLASSES, *volume.image.shape)
    torch.testing.assert_close(probabilities.sum(dim=0), torch.ones(volume.image.shape), atol=1e-3, rtol=0)
    result = scan_labels(probabilities, volume, (1, 1, 1))
    truth = volume.labels.numpy()[tuple(slice(0, n) for n in result.shape)]
    for value in (RIGHT, LEFT):
        overlap = np.count_nonzero((result == value) & (truth == value))
        assert 2 * overlap / (np.count_nonzero(result == value) + np.count_nonzero(truth == value)) > 0.8


def test_a_trunk_alone_trains_at_its_own_spacing(tmp_path: Path) -> None:
    recipe = replace(RECIPE, pool=STRIDE)
    trunk = run(tmp_path, steps=2, recipe=recipe, network=new_network(stride=(1, 1, 1), fine="none"))
    volume = small_volume()
    probabilities = whole_scan_probabilities(trunk, volume, recipe)
    assert probabilities.shape == (CLASSES, *(n // s for n, s in zip(volume.image.shape, STRIDE, strict=True)))
    assert scan_labels(probabilities, volume, STRIDE).shape == volume.grid.native_shape


def test_labels_of_a_pooled_volume_are_restored_at_their_position() -> None:
    volume = small_volume()
    pooled = torch.nn.functional.avg_pool3d(
        torch.nn.functional.one_hot(volume.labels.long(), CLASSES).movedim(-1, 0).float()[None], STRIDE
    )[0]
    result = scan_labels(pooled, volume, STRIDE)
    truth = volume.labels.numpy()[tuple(slice(0, n) for n in result.shape)]
    for value in (RIGHT, LEFT):
        middles = [np.argwhere(labels == value).mean(axis=0) for labels in (result, truth)]
        assert np.abs(middles[0] - middles[1]).max() < 0.25


def test_sets_with_different_organs_train_together(tmp_path: Path) -> None:
    sets = [TrainingSet([small_volume("a")], 0.5), TrainingSet([small_volume("b", drawn=frozenset({LEFT}))], 0.5)]
    run(tmp_path, steps=4, sets=sets)
    assert (tmp_path / "checkpoint.pt").is_file()


@pytest.mark.parametrize("patch", [(16, 30, 32), (4, 32, 32)])
def test_a_patch_that_does_not_fit_is_refused(tmp_path: Path, patch: tuple[int, int, int]) -> None:
    with pytest.raises(DiffusionSegmentError, match="does not fit") as caught:
        run(tmp_path, recipe=replace(RECIPE, patch=patch))
    assert caught.value.code is ErrorCode.OPTION


def test_a_checkpoint_of_another_architecture_is_reported_and_kept(tmp_path: Path) -> None:
    run(tmp_path, steps=1)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(DiffusionSegmentError, match="another network") as caught:
        run(tmp_path, resume=True, network=new_network(fine="none"))
    assert caught.value.code is ErrorCode.CHECKPOINT
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, steps=1)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DiffusionSegmentError, match="No space left") as caught:
        run(tmp_path, steps=3, resume=True)
    assert caught.value.code is ErrorCode.DISK_FULL
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_the_log_is_truncated_to_the_checkpoint(tmp_path: Path) -> None:
    run(tmp_path, steps=2)
    with open(tmp_path / "losses.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"step": n, "labels": 1.0}) + "\n" for n in (1, 2, 20, 40))
        file.write('{"step": 60, "lab')
    run(tmp_path, steps=3, resume=True)
    lines = (tmp_path / "losses.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_a_step_with_infinite_gradients_is_skipped(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 1)
    before = network.weight.detach().clone()
    training = Training(network, Budget(steps=1), tmp_path)
    training.run(lambda _: {"loss": (network.weight * float("inf")).sum()}, title="overflow", quiet=True)
    assert torch.equal(network.weight, before)


def test_processor_time_does_not_count_waiting() -> None:
    budget = Budget(steps=1, processor_time=True, cores=2)
    began, values = budget.clock(), torch.randn(400, 400)
    time.sleep(0.3)
    assert budget.clock() - began < 0.2
    while budget.clock() - began < 0.05:
        values = values @ values / values.norm()


def test_training_in_bf16_is_like_training_in_float32() -> None:
    losses = []
    for bf16 in (False, True):
        network = new_network().train()
        budget = replace(BUDGET, bf16=bf16)
        sampler = PatchSampler(
            [TrainingSet([small_volume()])],
            shape=RECIPE.shape(network),
            window=WINDOW,
            augmentation=NO_AUGMENTATION,
            seed=0,
        )
        values = SegmenterStep(network, RECIPE, budget).gradients(sampler.batch(0, 2), 0)
        losses.append({name: float(value.detach()) for name, value in values.items()})
        assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in network.parameters())
    assert losses[0] == pytest.approx(losses[1], rel=0.03)
