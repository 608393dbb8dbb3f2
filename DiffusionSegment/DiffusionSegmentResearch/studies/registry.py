"""All studies. A new one is a module with a function `study`, and an entry here."""

from __future__ import annotations

from .study import Study

_BAKEOFF = ("trainings", "fold", "trunk_minutes")
_SAMPLED = ("part", "cases", "crop", "measures")

STUDIES = {
    study.name: study
    for study in (
        Study(name="models", measures="Dice and surface Dice of whole models", module="model_quality"),
        Study(name="bodypart", measures="agreement of body coordinates over patients", module="bodypart"),
        Study(
            name="features",
            measures="linear and nonlinear probes on frozen features",
            module="frozen_features_study",
            options=("predictions",),
        ),
        Study(
            name="labels",
            measures="training from scratch, fine-tuning and frozen features on few cases",
            module="few_labels",
            options=("trainings",),
        ),
        Study(
            name="recycling",
            measures="schemes of training a refiner, step by step",
            module="recycling",
            options=("predictions",),
            required=("predictions",),
        ),
        Study(
            name="starts",
            measures="start, steps and samples of the reverse process",
            module="starts",
            options=("predictions",),
            required=("predictions",),
        ),
        Study(
            name="leaks",
            measures="paths by which the pre-segmentation decides the samples",
            module="leaks",
            options=_SAMPLED,
        ),
        Study(
            name="recovery",
            measures="simulated errors of a pre-segmentation that samples repair",
            module="recovery",
            options=_SAMPLED,
        ),
        Study(
            name="diversity", measures="spread of the samples against their error", module="diversity", options=_SAMPLED
        ),
        Study(name="uncertainty", measures="calibration and ranking of errors", module="uncertainty"),
        Study(name="settings", measures="cost of faster settings in Dice and calibration", module="settings"),
        Study(
            name="fine-tuning",
            measures="fine-tuning to one organ on one scan",
            module="fine_tuning",
            options=("targets", "minutes"),
        ),
        Study(name="corrections", measures="Dice over simulated corrections", module="correction"),
        Study(
            name="anatomy",
            measures="accepted and refused scans of the anatomy check",
            module="anatomy",
            options=("predictions", "others"),
            required=("predictions",),
        ),
        Study(name="organ-rules", measures="alarms of the rules about whole organs", module="organ_rules"),
        Study(name="augmentations", measures="appearance and cost of each augmentation", module="augmentations"),
        Study(name="tiles", measures="agreement of overlapping tiles", module="tiles"),
        Study(name="doubt", measures="samples left out where there is no doubt", module="tiles_in_doubt"),
        Study(
            name="bakeoff",
            measures="network variants trained for the same time",
            module="bakeoff_report",
            options=(*_BAKEOFF, "minutes"),
            required=("trainings",),
        ),
        Study(
            name="regions",
            measures="gross errors that a list of regions leads to",
            module="regions",
            options=_BAKEOFF,
            required=("trainings",),
        ),
        Study(
            name="region-probability",
            measures="reliability of the probability of regions, and margins of organs",
            module="region_probability",
            options=_BAKEOFF,
            required=("trainings",),
        ),
        Study(
            name="alternatives",
            measures="what the best alternative of a region gains",
            module="alternatives",
            options=_BAKEOFF,
            required=("trainings",),
        ),
        Study(
            name="validation-review",
            measures="regions to review and alternatives of a model on its validation cases",
            module="validation_review",
        ),
        Study(
            name="reviews",
            measures="reviews of experts' label maps, as they are and spoiled",
            module="expert_reviews",
            options=("part", "cases"),
        ),
        Study(
            name="audit",
            measures="wrong voxels that the audit network recognises",
            module="audit",
            options=("trainings", "minutes"),
            required=("trainings",),
        ),
        Study(
            name="refiner",
            measures="refiners whose samples may differ, against a deterministic one",
            module="refiner",
            options=("trainings", "minutes", "measures"),
            required=("trainings",),
        ),
        Study(
            name="norms",
            measures="normalisation layers of the trunk",
            module="norms",
            options=_BAKEOFF,
            required=("trainings",),
        ),
        Study(name="step", measures="time of the parts of a training step", module="step_profile"),
    )
}
