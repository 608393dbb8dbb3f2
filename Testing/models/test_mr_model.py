"""A model for MR, whose gray values have no unit: its window is in percentiles, and it refuses CT."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.datasets.augmentations import HospitalAugmentation
from DiffusionSegmentBackend.datasets.labelled_cases import CaseFiles, load_case
from DiffusionSegmentBackend.datasets.patch_geometry import PatchShape
from DiffusionSegmentBackend.datasets.patch_sampler import NO_AUGMENTATION, Augmentation, PatchSampler, TrainingSet
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.imaging.volume_io import write_volume
from DiffusionSegmentBackend.models.manifest import ModelDescription, read_description
from DiffusionSegmentBackend.models.model import Model, find_model, load_model
from DiffusionSegmentBackend.models.user_models import save_user_model
from DiffusionSegmentBackend.networks.probe import Probe
from DiffusionSegmentBackend.phantom.phantom import Phantom
from DiffusionSegmentBackend.pipeline.dense_features import scan_features
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.prepare import network_input, windowed
from DiffusionSegmentBackend.pipeline.segment import segment
from DiffusionSegmentBackend.training.fine_tuned_model import label_entries
from DiffusionSegmentResearch.studies.registry import STUDIES
from fixtures.dicom_files import slices, write
from fixtures.segmenter_data import SIDES, STRIDE, WINDOW, small_volume
from fixtures.segmenter_model import CHANNELS, anisotropic_phantom, write_segmenter_model
from numpy.typing import NDArray

NAME = "tiny-mr"
MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
PERCENTILES: dict[str, Any] = {"modality": "MR", "window": [0.5, 99.5], "window_unit": "percentile"}
# Gain and offset of other scanners; with those of type int the values stay integers.
SCALES = [(4, 0), (1, 300), (0.001, 0.0), (0.37, 12.5), (2.5, -900.0)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(autouse=True)
def own_models(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_SEGMENT_MODELS", str(models))


@pytest.fixture(scope="module")
def model(models: Path) -> Model:
    return load_model(str(write_segmenter_model(models, name=NAME, **PERCENTILES)), "cpu", precision="float32")


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return anisotropic_phantom()


@pytest.fixture(scope="module")
def scan(phantom: Phantom) -> Volume:
    """Gray values like those of an MR: none is negative, and air is dark."""
    return Volume(np.clip(phantom.image + 200, 0, 1000).astype(np.int16), phantom.index_to_lps)


def scaled(scan: Volume, gain: float, offset: float) -> Volume:
    """The scan with another gain and offset; integers stay integers."""
    values = scan.array * np.asarray(gain) + np.asarray(offset)
    return Volume(values.astype(np.int16 if isinstance(gain, int) else np.float32), scan.index_to_lps)


def input_of(scan: Volume, description: ModelDescription) -> NDArray[np.float32]:
    return network_input(scan, model_grid(scan, spacing=description.spacing_mm), description)


class TestWindow:
    @pytest.mark.parametrize(("gain", "offset"), SCALES)
    def test_gain_and_offset_do_not_matter(self, model: Model, scan: Volume, gain: float, offset: float) -> None:
        plain = input_of(scan, model.description)
        assert (plain.min(), plain.max()) == pytest.approx((-1, 1))
        assert np.mean(np.abs(plain) < 0.9) > 0.1, "there is something between black and white"
        np.testing.assert_allclose(input_of(scaled(scan, gain, offset), model.description), plain, atol=2e-4)

    def test_percentiles_are_those_of_the_scans_own_voxels(self, model: Model, scan: Volume) -> None:
        grid = model_grid(scan, spacing=model.description.spacing_mm)
        low, high = np.percentile(scan.array, [0.5, 99.5])
        expected = (np.clip(grid.to_grid(scan.array), low, high) - low) / (high - low) * 2 - 1
        np.testing.assert_allclose(input_of(scan, model.description), expected, atol=1e-5)

    @pytest.mark.parametrize("offset", [(1.0, 0.0), (0.001, 77.0)])
    def test_the_labels_do_not_depend_on_gain_and_offset(
        self, model: Model, scan: Volume, offset: tuple[float, float]
    ) -> None:
        options = SegmentOptions(modality="MR")
        expected, other = (segment(volume, model, options).labels for volume in (scan, scaled(scan, *offset)))
        assert len(np.unique(expected)) > 2
        assert np.mean(expected == other) > 0.999

    def test_features_and_training_have_the_same_normalised_image(
        self, model: Model, scan: Volume, tmp_path: Path
    ) -> None:
        labels = Volume((scan.array > 300).astype(np.uint8), scan.index_to_lps)
        write_volume(labels, tmp_path / "labels.nii.gz")
        images = []
        for n, volume in enumerate((scan, scaled(scan, 0.001, 0.0))):
            write_volume(volume, tmp_path / f"{n}.nii.gz")
            files = CaseFiles(str(n), tmp_path / f"{n}.nii.gz", tmp_path / "labels.nii.gz")
            images.append((scan_features(volume, model).image.numpy(), load_case(files, model.description).image))
        for first, second in zip(*images, strict=True):
            np.testing.assert_allclose(first, second, atol=2e-4)
            assert first.std() > 0.1

    @pytest.mark.parametrize("values", [0.0, 412.0, -1e30, 1e-40])
    def test_a_scan_of_one_value_is_refused_in_one_line(self, model: Model, scan: Volume, values: float) -> None:
        array = np.full(scan.array.shape, values, np.float32)
        array[0, 0, 0] = values + 5
        with pytest.raises(DiffusionSegmentError, match="The scan shows nothing: from percentile") as caught:
            segment(Volume(array, scan.index_to_lps), model, SegmentOptions(modality="MR", force=True))
        assert caught.value.code is ErrorCode.INPUT_VALUES
        assert "\n" not in str(caught.value)

    def test_nan_is_refused_also_in_arrays(self, model: Model, scan: Volume) -> None:
        array = scan.array.astype(np.float32)
        array[3, 3, 3] = np.nan
        with pytest.raises(DiffusionSegmentError, match="1 voxels that are NaN") as caught:
            segment(Volume(array, scan.index_to_lps), model, SegmentOptions(modality="MR"))
        assert caught.value.code is ErrorCode.INPUT_VALUES

    def test_a_training_case_of_one_value_is_reported_with_its_name(
        self, model: Model, scan: Volume, tmp_path: Path
    ) -> None:
        for name, value in (("image", 7), ("label", 1)):
            write_volume(Volume(np.full_like(scan.array, value), scan.index_to_lps), tmp_path / f"{name}.nii.gz")
        files = CaseFiles("p7", tmp_path / "image.nii.gz", tmp_path / "label.nii.gz")
        with pytest.raises(DiffusionSegmentError, match="Case p7 shows nothing"):
            load_case(files, model.description)


class TestDescription:
    @pytest.mark.parametrize(
        ("name", "unit", "window"),
        [
            ("abdomen-ct", "HU", (-125.0, 275.0)),
            ("headneck-ct", "HU", (-125.0, 275.0)),
            ("hippocampus-mr", "value", (0.0, 450.0)),
        ],
    )
    def test_the_input_of_models_without_a_window_unit_is_unchanged(
        self, scan: Volume, name: str, unit: str, window: tuple[float, float]
    ) -> None:
        description = read_description(find_model(name))
        assert (description.window_unit, description.window, description.nominal_window) == (unit, window, window)
        assert description.in_hounsfield == (unit == "HU")
        on_grid = model_grid(scan, spacing=description.spacing_mm).to_grid(scan.array)
        low, high = window
        before = ((np.clip(on_grid, low, high) - low) * (2.0 / (high - low)) - 1.0).astype(np.float32)
        assert before.std() > 0.1
        np.testing.assert_array_equal(input_of(scan, description), before)
        np.testing.assert_array_equal(windowed(on_grid, window), before)

    @pytest.mark.parametrize(
        ("described", "words"),
        [
            ({"window_unit": "percent"}, "window_unit must be one of HU, value, percentile"),
            ({"window_unit": ["HU"]}, "window_unit is .* not of type str"),
            ({"window_unit": None}, "window_unit is None, not of type str"),
            ({"window_unit": "HU"}, "for CT alone"),
            ({"window": [99.5, 0.5]}, "window must rise"),
            ({"window": [5.0, 5.0]}, "window must rise"),
            ({"window": [-0.5, 99.5]}, "0 to 100"),
            ({"window": [0.5, 100.5]}, "0 to 100"),
            ({"window": [0.5, float("nan")]}, "not a finite number"),
        ],
    )
    def test_an_invalid_window_is_refused_in_one_line(
        self, tmp_path: Path, described: dict[str, Any], words: str
    ) -> None:
        raw = json.loads((find_model("hippocampus-mr") / "model.json").read_text(encoding="utf-8"))
        (tmp_path / "model.json").write_text(json.dumps({**raw, **PERCENTILES, **described}), encoding="utf-8")
        with pytest.raises(DiffusionSegmentError, match=words) as caught:
            read_description(tmp_path)
        assert caught.value.code is ErrorCode.WEIGHTS_CORRUPT
        assert "\n" not in str(caught.value)

    def test_a_fine_tuned_model_keeps_the_window_of_its_base(self, model: Model) -> None:
        labels = label_entries({1: "cyst"}, model.description)
        folder = save_user_model("cysts", Probe(CHANNELS, 2), base=model.description, labels=labels, anatomy={})
        assert read_description(folder).window_unit == "percentile"
        assert load_model("cysts", "cpu").description.window == (0.5, 99.5)


class TestModality:
    def test_any_mr_is_accepted(self, model: Model, scan: Volume) -> None:
        assert segment(scan, model, SegmentOptions()).labels.shape == scan.array.shape
        centred = scaled(scan, 0.002, -0.4)
        assert centred.array.min() < 0
        assert segment(centred, model, SegmentOptions()).labels.any()

    @pytest.mark.parametrize("name", [NAME, "abdomen-mr", "hippocampus-mr"])
    def test_a_ct_is_refused_by_header_and_by_values(self, model: Model, phantom: Phantom, name: str) -> None:
        ct = Volume(phantom.image, phantom.index_to_lps)
        clipped = Volume(ct.array.clip(-125, 275), ct.index_to_lps)
        chosen = model if name == NAME else load_model(name, "cpu")
        for volume, stated, words in (
            (ct, "CT", "This is CT, but the model was trained on MR"),
            (ct, None, "These values are Hounsfield units .*: this is a CT. The model was trained on MR"),
            (clipped, None, "These values are Hounsfield units"),
        ):
            with pytest.raises(DiffusionSegmentError, match=words) as caught:
                segment(volume, chosen, SegmentOptions(modality=stated))
            assert caught.value.code is ErrorCode.MODALITY
            assert caught.value.hint == "Choose a model for CT, if there is one."

    def test_a_ct_runs_if_forced(self, model: Model, phantom: Phantom) -> None:
        ct = Volume(phantom.image, phantom.index_to_lps)
        assert segment(ct, model, SegmentOptions(modality="CT", force=True)).labels.shape == ct.array.shape

    def test_the_modality_of_a_series_is_checked_on_the_command_line(
        self, model: Model, scan: Volume, phantom: Phantom, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        unit: dict[str, Any] = {"RescaleIntercept": None, "RescaleSlope": None, "RescaleType": None}
        stored = Volume(scan.array - 1024, scan.index_to_lps)  # `slices` adds 1024 to the stored values
        mr = write(slices(stored, Modality="MR", SOPClassUID=MR_IMAGE_STORAGE, **unit), tmp_path / "mr")
        ct = write(slices(Volume(np.clip(phantom.image, -1024, 3000), phantom.index_to_lps)), tmp_path / "ct")
        options = ["--model", NAME, "--device", "cpu", "--quiet"]
        assert main(["segment", str(mr), "-o", str(tmp_path / "out"), *options]) == 0
        printed = capfd.readouterr()
        assert "(MR, " in printed.out
        assert not [
            word for word in ("HU", "CT", "Hounsfield") if word in printed.out.replace(str(tmp_path), "").split()
        ]
        assert main(["segment", str(ct), "-o", str(tmp_path / "none"), *options]) == 2
        assert capfd.readouterr().err.startswith("MODALITY: This is CT, but the model was trained on MR.")


class TestTraining:
    def test_patches_are_the_same_in_any_intensity_window(self, model: Model) -> None:
        window = model.description.nominal_window
        images = []
        for intensity_window in (window, WINDOW):
            sampler = PatchSampler(
                [TrainingSet([small_volume()])],
                shape=PatchShape(SIDES, STRIDE),
                window=intensity_window,
                augmentation=Augmentation(),
                seed=4,
            )
            images.append(torch.cat([sampler.patch(n).image for n in range(6)]))
        assert window == (-1.0, 1.0)
        assert float(images[0].std()) > 0.1
        torch.testing.assert_close(images[0], images[1], atol=1e-3, rtol=0)

    def test_augmentation_in_hu_is_refused_for_mr(self, model: Model) -> None:
        with pytest.raises(DiffusionSegmentError, match="works on HU") as caught:
            PatchSampler(
                [TrainingSet([small_volume()])],
                shape=PatchShape(SIDES, STRIDE),
                window=model.description.nominal_window,
                augmentation=replace(NO_AUGMENTATION, hospital=HospitalAugmentation()),
                seed=0,
            )
        assert caught.value.code is ErrorCode.OPTION
        with pytest.raises(DiffusionSegmentError, match="is for CT, tiny-mr for MR"):
            STUDIES["augmentations"].run([model.description.folder], [Path("none.nii.gz")], Path("none.json"))
