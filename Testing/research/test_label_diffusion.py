"""The refiner whose samples may differ: noise, process, network, training, and samples of a scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.models.tile_shape import TileShape
from DiffusionSegmentBackend.training.corruption import without_organ
from DiffusionSegmentBackend.training.loop import Budget, RunOptions
from DiffusionSegmentResearch.label_diffusion import inference, training
from DiffusionSegmentResearch.label_diffusion.coarse import decoded, pooled
from DiffusionSegmentResearch.label_diffusion.inference import FieldsOfScan, Scan, drawn_samples, sampled
from DiffusionSegmentResearch.label_diffusion.network import LabelDenoiser, LogitDistribution
from DiffusionSegmentResearch.label_diffusion.noise import broad_band_noise, white_noise
from DiffusionSegmentResearch.label_diffusion.process import Process, drawn_labels
from DiffusionSegmentResearch.label_diffusion.training import (
    DenoiserStep,
    Recipe,
    on_coarse_grid,
    train_denoiser,
)
from torch import Tensor

CLASSES = 3
SMALL = (8, 8)


def tiny(*, rank: int = 0) -> LabelDenoiser:
    torch.manual_seed(0)
    return LabelDenoiser(CLASSES, channels=SMALL, rank=rank).eval()


def inputs(batch: int = 1, side: int = 8) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.zeros((batch, 1, side, side, side), dtype=torch.long)
    labels[..., 2:5, 2:5] = 1
    labels[..., 5:7, 5:7] = 2
    prior = torch.nn.functional.one_hot(labels[:, 0], CLASSES).movedim(-1, 1).float()
    return {
        "image": torch.randn((batch, 1, side, side, side), generator=generator),
        "coordinates": torch.randn((batch, 3, side, side, side), generator=generator),
        "labels": labels,
        "prior": prior,
        "drawn": torch.ones((batch, CLASSES), dtype=torch.bool),
    }


def case_of(shape: tuple[int, int, int]) -> Case:
    labels = np.zeros(shape, np.uint8)
    labels[2:8, 2:8, 2:8] = 1
    labels[2:8, 2:8, 10:14] = 2
    image = np.where(labels == 1, 0.8, np.where(labels == 2, -0.2, 0.2)).astype(np.float32)
    grid = model_grid(Volume(np.zeros(shape, np.float32), np.diag([3.0, 3.0, 3.0, 1.0])), spacing=(3.0, 3.0, 3.0))
    return Case("case", image, labels, grid, coordinates=np.zeros((3, *shape), np.float16))


def test_broad_band_noise_has_variance_one_everywhere_and_reaches_over_an_organ() -> None:
    generator = torch.Generator().manual_seed(0)
    fields = torch.stack([broad_band_noise((20, 24, 28), channels=8, generator=generator) for _ in range(120)])
    variance = fields.var(dim=(0, 1))
    assert abs(float(fields.mean())) < 0.02
    assert float(variance.mean()) == pytest.approx(1, abs=0.03)
    assert 0.7 < float(variance.min()) < float(variance.max()) < 1.3
    correlations = [float((fields[..., n:] * fields[..., :-n]).mean()) for n in (1, 2, 6)]
    assert correlations[0] > correlations[1] > correlations[2] > 0.02


@pytest.mark.parametrize("side", [4, 8])
def test_broad_band_noise_hides_the_mean_of_an_organ_better_than_white_noise(side: int) -> None:
    generator = torch.Generator().manual_seed(0)

    def deviation_of_mean(make: object) -> float:
        fields = [make((16, 16, 16), channels=4, generator=generator) for _ in range(60)]  # type: ignore[operator]
        return float(torch.stack(fields)[..., :side, :side, :side].mean(dim=(2, 3, 4)).std())

    white, broad = deviation_of_mean(white_noise), deviation_of_mean(broad_band_noise)
    assert white == pytest.approx(side**-1.5, rel=0.2)
    assert broad > 3 * white


def test_states_have_the_scale_of_the_process_and_inputs_have_variance_one() -> None:
    process = Process()
    assert process.coded(torch.tensor([0.0, 0.5, 1.0])).tolist() == pytest.approx([-0.1, 0, 0.1])
    x0 = process.coded((torch.rand((4, 16, 16, 16)) > 0.5).float())
    noise = process.noise((16, 16, 16), channels=4, generator=torch.Generator().manual_seed(0))
    alpha_bar = torch.tensor(0.5)
    x_t = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise
    assert float(process.normalised(x_t, alpha_bar).std()) == pytest.approx(1, abs=0.15)


def test_noise_levels_reach_from_the_start_level_to_the_clean_state() -> None:
    process = Process()
    levels = process.alpha_bars(4)
    assert levels[0] == pytest.approx(0.01, abs=1e-3)
    assert levels[-1] == 1
    assert levels == sorted(levels)
    drawn = process.levels(500, torch.Generator().manual_seed(0))
    assert float(drawn.min()) == pytest.approx(levels[0])
    assert 0.3 < float((drawn == drawn.min()).float().mean()) < 0.5


def test_labels_are_drawn_with_their_probabilities() -> None:
    p = torch.tensor([0.2, 0.5, 0.3])[:, None, None, None].expand(3, 30, 30, 30)
    drawn = drawn_labels(p, torch.rand((30, 30, 30), generator=torch.Generator().manual_seed(0)))
    assert drawn.sum(dim=0).unique().tolist() == [1]
    assert drawn.mean(dim=(1, 2, 3)).tolist() == pytest.approx([0.2, 0.5, 0.3], abs=0.02)


def test_a_pre_segmentation_that_is_not_shown_has_no_influence() -> None:
    item, network = inputs(), tiny()
    others = item["prior"].roll(1, dims=1)
    state, level = torch.randn_like(others), torch.zeros(1)

    def mean(pre: Tensor, given: float) -> Tensor:
        logits: LogitDistribution = network(
            item["image"], item["coordinates"], pre, torch.tensor([given]), state, level
        )
        return logits.mean

    assert torch.equal(mean(item["prior"], 0), mean(others, 0))
    assert not torch.allclose(mean(item["prior"], 1), mean(others, 1))


def test_draws_of_low_rank_are_smooth_and_differ_and_rank_zero_has_none() -> None:
    item = inputs()
    arguments = (item["image"], item["coordinates"], item["prior"], torch.ones(1), torch.zeros_like(item["prior"]))
    low_rank = tiny(rank=2)(*arguments, torch.zeros(1))
    first, second = (low_rank.drawn(torch.tensor([c])) for c in ([1.0, 0.0], [-1.0, 0.5]))
    assert not torch.allclose(first, second)
    torch.testing.assert_close(low_rank.drawn(torch.zeros(1, 2)), low_rank.mean)
    without = tiny()(*arguments, torch.zeros(1))
    assert without.factors is None
    assert torch.equal(without.drawn(torch.zeros(1, 0)), without.mean)


def test_the_recipe_hides_deletes_and_corrupts_pre_segmentations_in_its_shares() -> None:
    (pre,) = inputs()["prior"]
    step = DenoiserStep(tiny(), Recipe(process=None), torch.Generator().manual_seed(0))
    drawn = [step._condition(pre) for _ in range(300)]
    hidden = sum(given == 0 for _, given in drawn) / 300
    unchanged = sum(bool(torch.equal(p, pre)) for p, given in drawn if given) / 300
    assert hidden == pytest.approx(0.3, abs=0.08)
    assert 0.25 < unchanged < 0.5


def test_a_deleted_organ_becomes_background_and_probabilities_still_sum_to_one() -> None:
    (pre,) = inputs()["prior"]
    deleted = without_organ(pre, torch.Generator().manual_seed(0))
    assert (deleted.flatten(1).sum(dim=1)[1:] == 0).sum() == 1
    assert torch.equal(deleted.sum(dim=0), pre.sum(dim=0))
    background = torch.zeros_like(pre)
    background[0] = 1
    assert torch.equal(without_organ(background, torch.Generator()), background)


@pytest.mark.parametrize("process", [Process(), Process(scale=1.0, broad_band=False, abar_start=0.2), None])
def test_losses_reach_every_weight(process: Process | None) -> None:
    network = tiny(rank=0 if process else 2).train()
    step = DenoiserStep(network, Recipe(process=process, null_share=0.0), torch.Generator().manual_seed(3))
    losses = step.losses(inputs(batch=2))
    torch.stack(list(losses.values())).sum().backward()
    assert set(losses) == ({"dice_ce"} if process else {"dice_ce", "draws"})
    assert all(bool(torch.isfinite(p.grad).all()) for p in network.parameters() if p.grad is not None)
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_a_trained_network_restores_an_organ_that_the_pre_segmentation_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "_TILE", TileShape.cube(8))
    case, network = case_of((16, 16, 16)), tiny().train()
    pre = torch.from_numpy(np.eye(CLASSES, dtype=np.float32)[case.labels].transpose(3, 0, 1, 2).copy())
    item = {
        "image": torch.from_numpy(case.image)[None, None],
        "coordinates": torch.zeros((1, 3, 16, 16, 16)),
        "labels": torch.from_numpy(case.labels)[None, None].long(),
        "prior": pre[None],
        "drawn": torch.ones((1, CLASSES), dtype=torch.bool),
    }
    step = DenoiserStep(network, Recipe(process=Process()), torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(90):
        optimizer.zero_grad()
        step.losses(item)["dice_ce"].backward()
        optimizer.step()
    pre = pre.clone()
    pre[0] += pre[1]
    pre[1] = 0
    result = sampled(network.eval(), Scan.of(case), pre, Process(), steps=2, shown=True, seed=0)
    predicted, truth = result.argmax(dim=0).numpy() == 1, case.labels == 1
    assert 2 * np.count_nonzero(predicted & truth) / (predicted.sum() + truth.sum()) > 0.7


def test_training_resumes_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "PATCH", 16)
    case = case_of((16, 16, 16))
    prior = np.eye(CLASSES, dtype=np.float16)[case.labels].transpose(3, 0, 1, 2)

    def trained(steps: int) -> LabelDenoiser:
        run = RunOptions(budget=Budget(steps=steps), folder=tmp_path, resume=True)
        return train_denoiser(tiny().train(), [case], [prior], recipe=Recipe(process=Process()), run=run)

    first, second = trained(1), trained(2)
    assert not torch.equal(first.head.weight, second.head.weight)
    assert torch.equal(second.head.weight, trained(2).head.weight)


def test_the_coarse_grid_changes_what_the_estimate_changes_and_keeps_finer_detail() -> None:
    pre = torch.from_numpy(np.eye(CLASSES, dtype=np.float32)[case_of((16, 16, 16)).labels].transpose(3, 0, 1, 2).copy())
    coarse = pooled(pre[None])[0]
    assert torch.equal(decoded(coarse, pre).argmax(dim=0), pre.argmax(dim=0))
    changed = coarse.clone()
    changed[0, :4, :4, :4] += changed[1, :4, :4, :4]
    changed[1, :4, :4, :4] = 0
    result = decoded(changed, pre).argmax(dim=0)
    assert not (result == 1).any()
    assert torch.equal(result == 2, pre.argmax(dim=0) == 2)


def test_batches_on_the_coarse_grid_have_soft_labels_and_distributions() -> None:
    item = inputs()
    item["prior"] = item["prior"] * 0.9
    coarse = on_coarse_grid(item)
    assert coarse["labels"].shape == (1, 8, 4, 4, 4)
    torch.testing.assert_close(coarse["prior"].sum(dim=1), torch.ones(1, 4, 4, 4))
    assert coarse["image"].shape == (1, 1, 4, 4, 4)
    assert coarse["image"][0, 0, 0, 0, 0] == pytest.approx(float(item["image"][0, 0, :2, :2, :2].mean()), abs=1e-6)


def test_samples_depend_on_the_seed_alone_and_neighbouring_tiles_share_their_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inference, "_TILE", TileShape.cube(8))
    case = case_of((16, 16, 40))
    pre = torch.from_numpy(np.eye(CLASSES, dtype=np.float32)[case.labels].transpose(3, 0, 1, 2).copy())
    scan, network = Scan.of(case), tiny()

    def draw(seed: int) -> Tensor:
        return sampled(network, scan, pre, Process(), steps=2, shown=True, seed=seed)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert len(scan.tiling.tiles) > 1
    fields = FieldsOfScan(Process(), scan.tiling.shape, CLASSES, seed=1)
    assert fields.noise(0) is fields.noise(0)
    assert not torch.equal(fields.noise(0), fields.noise(1))
    torch.testing.assert_close(draw(1).sum(dim=0), torch.ones(case.labels.shape))


def test_draws_of_a_scan_are_its_mean_and_as_many_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "_TILE", TileShape.cube(8))
    case = case_of((16, 16, 20))
    pre = torch.from_numpy(np.eye(CLASSES, dtype=np.float32)[case.labels].transpose(3, 0, 1, 2).copy())
    mean, *draws = drawn_samples(tiny(rank=2), Scan.of(case), pre, count=3, shown=False, seed=0)
    assert len(draws) == 3
    assert not torch.equal(draws[0], draws[1])
    torch.testing.assert_close(mean.sum(dim=0), torch.ones(case.labels.shape))
