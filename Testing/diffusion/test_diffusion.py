"""Schedules, forward process, reverse steps and the noise field, against MONAI's and the papers' formulas."""

from __future__ import annotations

import pytest
import torch
from DiffusionSegmentBackend.diffusion.noise import noise_field
from DiffusionSegmentBackend.diffusion.reverse import ddim_step, ddpm_step, reverse_step
from DiffusionSegmentBackend.diffusion.schedule import (
    Schedule,
    add_noise,
    log_snr,
    velocity,
)
from DiffusionSegmentBackend.errors import DiffusionSegmentError
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler


def monai_schedule(name: str, scheduler: type) -> DDPMScheduler | DDIMScheduler:
    """MONAI's t = 0 has one step of noise, t = 0 of `Schedule` has none: MONAI's t is t + 1 here."""
    if name == "linear":
        return scheduler(1000, schedule="linear_beta", beta_start=1e-4, beta_end=2e-2, clip_sample=False)
    return scheduler(1000, schedule="cosine", clip_sample=False)


def test_linear_alpha_bar_equals_monai() -> None:
    reference = monai_schedule("linear", DDPMScheduler).alphas_cumprod
    torch.testing.assert_close(Schedule("linear").at(torch.arange(1, 1001)), reference, rtol=1e-4, atol=1e-6)


def test_cosine_alpha_bar_has_known_values_at_usual_starts() -> None:
    """cosine steps 372, 509, 706, 841 of 1000 carry 0.689, 0.480, 0.196, 0.060 of the signal."""
    values = Schedule("cosine").at(torch.tensor([372, 509, 706, 841]))
    torch.testing.assert_close(values, torch.tensor([0.689, 0.480, 0.196, 0.060]), atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_alpha_bar_decreases_from_one_to_nearly_zero(name: str) -> None:
    alpha_bar = Schedule(name).alpha_bar
    assert alpha_bar[0] == 1
    assert (alpha_bar.diff() <= 0).all()
    assert alpha_bar[-1] < 1e-4
    assert Schedule(name).step_of(float(alpha_bar[300])) == 300


def test_log_snr_is_bounded_and_decreases_with_noise() -> None:
    values = log_snr(Schedule("linear").at(torch.arange(1001)))
    assert values.abs().max() <= 12
    assert (values.diff() <= 0).all()


def test_forward_process_equals_monai() -> None:
    scheduler = monai_schedule("linear", DDPMScheduler)
    x0, noise = torch.randn(2, 2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([3, 700])
    expected = scheduler.add_noise(x0, noise, t)
    torch.testing.assert_close(add_noise(x0, noise, Schedule("linear").at(t + 1)), expected, rtol=1e-4, atol=1e-4)


def test_velocity_equals_monai() -> None:
    scheduler = monai_schedule("linear", DDPMScheduler)
    x0, noise = torch.randn(2, 2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([9, 700])
    expected = scheduler.get_velocity(x0, noise, t)
    torch.testing.assert_close(velocity(x0, noise, Schedule("linear").at(t + 1)), expected, rtol=1e-4, atol=1e-4)


def test_ddim_step_equals_monai() -> None:
    scheduler = monai_schedule("linear", DDIMScheduler)
    scheduler.prediction_type = "sample"
    scheduler.set_timesteps(10)
    x0, x_t = torch.randn(2, 1, 2, 3, 3, 3, generator=torch.Generator().manual_seed(2))
    expected, _ = scheduler.step(x0, 500, x_t)
    schedule = Schedule("linear")
    actual = ddim_step(x_t, x0, alpha_bar_t=float(schedule.at(501)), alpha_bar_s=float(schedule.at(401)))
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


def test_ddpm_step_has_the_posterior_mean_of_monai() -> None:
    scheduler = monai_schedule("linear", DDPMScheduler)
    scheduler.prediction_type = "sample"
    x0, x_t = torch.randn(2, 1, 2, 3, 3, 3, generator=torch.Generator().manual_seed(3))
    schedule = Schedule("linear")
    levels = {"alpha_bar_t": float(schedule.at(2)), "alpha_bar_s": float(schedule.at(1))}
    mean = ddpm_step(x_t, x0, **levels, noise=torch.zeros_like(x_t))
    sigma = (ddpm_step(x_t, x0, **levels, noise=torch.ones_like(x_t)) - mean).mean()
    expected, _ = scheduler.step(x0, 1, x_t, generator=torch.Generator().manual_seed(0))
    assert (expected - mean).abs().max() < 6 * sigma
    torch.testing.assert_close(float(sigma) ** 2, float(scheduler._get_variance(1)), rtol=1e-2, atol=1e-9)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_the_last_step_gives_x0(sampler: str) -> None:
    x0, x_t, noise = torch.randn(3, 1, 2, 3, 3, 3, generator=torch.Generator().manual_seed(4))
    actual = reverse_step(sampler, x_t, x0, alpha_bar_t=0.3, alpha_bar_s=1.0, noise=noise)
    torch.testing.assert_close(actual, x0, rtol=1e-5, atol=1e-6)


def test_ddim_keeps_the_marginal_of_the_forward_process() -> None:
    """With the true x0 the step from x_t gives exactly q(x_s | x_0) with the same noise."""
    x0, noise = torch.randn(2, 1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(5))
    x_t = add_noise(x0, noise, torch.tensor(0.2))
    expected = add_noise(x0, noise, torch.tensor(0.7))
    torch.testing.assert_close(ddim_step(x_t, x0, alpha_bar_t=0.2, alpha_bar_s=0.7), expected, rtol=1e-4, atol=1e-5)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(DiffusionSegmentError, match="schedule"):
        Schedule("square")
    with pytest.raises(DiffusionSegmentError, match="sampler"):
        reverse_step("euler", torch.zeros(1), torch.zeros(1), alpha_bar_t=0.1, alpha_bar_s=0.2, noise=torch.zeros(1))


class TestNoiseField:
    def test_is_standard_normal(self) -> None:
        field = noise_field((16, 32, 32), channels=3, seed=1, sample=0, step=0)
        assert field.shape == (3, 16, 32, 32)
        assert abs(float(field.mean())) < 0.02
        assert abs(float(field.std()) - 1) < 0.02

    def test_repeats_bit_by_bit(self) -> None:
        arguments = {"channels": 2, "seed": 7, "sample": 3, "step": 1}
        assert torch.equal(noise_field((4, 5, 6), **arguments), noise_field((4, 5, 6), **arguments))

    @pytest.mark.parametrize("other", [{"seed": 8}, {"sample": 4}, {"step": 2}])
    def test_differs_with_seed_sample_and_step(self, other: dict[str, int]) -> None:
        arguments = {"channels": 2, "seed": 7, "sample": 3, "step": 1}
        first, second = noise_field((4, 16, 16), **arguments), noise_field((4, 16, 16), **{**arguments, **other})
        assert abs(float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])) < 0.1

    def test_a_slab_has_the_values_of_the_whole_field(self) -> None:
        whole = noise_field((9, 5, 6), channels=2, seed=7, sample=0, step=0)
        slab = noise_field((3, 5, 6), channels=2, seed=7, sample=0, step=0, z_offset=4)
        assert torch.equal(whole[:, 4:7], slab)
