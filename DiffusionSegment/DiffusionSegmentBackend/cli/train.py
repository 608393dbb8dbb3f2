"""The training commands: `diffusion-segment train | average | presegment | calibrate`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import DiffusionSegmentError, ErrorCode
from .command_parser import examples
from .namespace import from_namespace
from .new_manifest import add_init_options, run_init
from .run_options import add_device_option

_NETWORKS = ("bodypart", "backbone", "probe", "refiner")
_OBJECTIVES = ("diffusion", "restorative", "contrastive", "student")
_SCHEMES = ("recycling", "standard", "self-conditioning", "one-step", "from-noise", "deterministic")
_STAGES = ("bodypart", "trunk", "segmenter", "folds", "student", "calibration", "card")


def add_training_commands(commands: Any) -> None:
    """Add the commands to the subparsers of `diffusion-segment`."""
    _add_train(commands)
    _add_average(commands)
    _add_presegment(commands)
    _add_calibrate(commands)


def add_data_option(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add `--data`, which may be given several times."""
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        required=required,
        default=None if required else [],
        metavar="DIR",
        help="folder with images/ and labels/; may be given several times",
    )


def _add_train(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="train a model, or one network of a model of the first generation",
        epilog=examples(
            "train --data data -o model --manifest manifest.json --minutes 600",
            "train probe --finetune --data data -o model",
        ),
    )
    parser.add_argument("network", nargs="?", choices=_NETWORKS, help="without it, a whole model in --minutes")
    add_data_option(parser, required=False)
    _add_whole_model(parser)
    add_init_options(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="the model's folder")
    parser.add_argument("--licence", default="", metavar="TEXT", help="licence of the weights, for model.json")
    parser.add_argument("--data-source", default="", metavar="TEXT", help="origin of the scans, for model.json")
    parser.add_argument("--base", default="abdomen-ct", help="model or manifest (.json) of a new folder")
    parser.add_argument(
        "--joint-with",
        action="append",
        default=[],
        metavar="MODEL=DATA",
        help="train the model in this folder jointly, with a shared body-part network and backbone",
    )
    parser.add_argument(
        "--joint-share", type=float, metavar="S", help="probe: share of the steps of each --joint-with (default: equal)"
    )
    parser.add_argument(
        "--unlabelled",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="bodypart, backbone: more scans",
    )
    parser.add_argument("--fold", default="1/1", metavar="I/N", help="hold out every N-th case, starting with the I-th")
    parser.add_argument("--steps", type=int, help="maximum number of steps (default: that of the network)")
    parser.add_argument(
        "--minutes",
        type=float,
        help="a whole model: total minutes, including reading and scoring; one network: minutes of training",
    )
    parser.add_argument("--learning-rate", type=float, help="maximum learning rate (default: that of the network)")
    parser.add_argument("--batch", type=int, default=2, help="patches per step (default: %(default)s)")
    parser.add_argument("--patch", type=int, default=64, help="side of a patch in voxels, a multiple of 16")
    parser.add_argument("--seed", type=int, default=0, help="of weights, patches and noise (default: %(default)s)")
    add_device_option(parser)
    _add_network_options(parser)
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    parser.set_defaults(run=_run_train)


def _add_network_options(parser: argparse.ArgumentParser) -> None:
    """Options of one network of the first generation."""
    parser.add_argument("--bf16", action="store_true", help="mixed precision in bfloat16")
    parser.add_argument("--init-from-weights", action="store_true", help="start from the weights in the folder")
    parser.add_argument("--objective", default="diffusion", choices=_OBJECTIVES, help="backbone: pretraining objective")
    parser.add_argument(
        "--no-coordinates",
        dest="use_coordinates",
        action="store_false",
        help="backbone: without body coordinates",
    )
    parser.add_argument("--finetune", action="store_true", help="probe: train the backbone together with the probe")
    parser.add_argument("--scheme", default="recycling", choices=_SCHEMES, help="refiner: what x_t is built from")
    parser.add_argument(
        "--presegmentations",
        type=Path,
        metavar="DIR",
        help="refiner: output of `presegment`, instead of the probe",
    )


def _add_whole_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("a whole model")
    group.add_argument(
        "--manifest",
        metavar="NAME|FILE",
        help="a model.json without networks, as --init writes it (default: that in the model's folder)",
    )
    group.add_argument("--folds", type=int, default=3, metavar="N", help="networks for out-of-fold predictions")
    group.add_argument(
        "--denoising-share",
        type=float,
        default=0.2,
        metavar="S",
        help="patches denoised instead of segmented",
    )
    group.add_argument(
        "--pseudo-labels",
        action="store_true",
        help="try pseudo-labels for organs without annotation; kept if they help",
    )
    group.add_argument(
        "--processor-time", action="store_true", help="count minutes of CPU time instead of wall-clock time"
    )
    group.add_argument(
        "--more-minutes", type=float, metavar="N", help="train the network of a trained model in -o for N minutes more"
    )
    group.add_argument("--stage", choices=_STAGES, help="run only this stage; the stages before it must be finished")


def _add_average(commands: Any) -> None:
    parser = commands.add_parser(
        "average",
        help="average the weights of runs that started from the same weights",
        epilog=examples("average run-1 run-2 -o mean"),
    )
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="model folders")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the averaged model")
    parser.set_defaults(run=_run_average)


def _add_presegment(commands: Any) -> None:
    parser = commands.add_parser(
        "presegment",
        help="write the probe's probabilities of training cases",
        epilog=examples("presegment --data data --model model --part validation -o presegmentations"),
    )
    add_data_option(parser)
    parser.add_argument("--model", required=True, help="name or folder")
    parser.add_argument("--fold", default="1/1", metavar="I/N", help="only the held-out cases of this fold")
    parser.add_argument("--part", default="train", help="the part of splits.json (default: %(default)s)")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the probabilities, one file per case"
    )
    add_device_option(parser)
    parser.set_defaults(run=_run_presegment)


def _add_calibrate(commands: Any) -> None:
    parser = commands.add_parser(
        "calibrate",
        help="fit a temperature or the intervals of volumes on cases that the model was not trained on, or its reviews",
        epilog=examples(
            "calibrate refiner --data data --model model",
            "calibrate volumes --data data --model model",
            "calibrate reviews --data data --model model",
        ),
    )
    parser.add_argument(
        "target",
        nargs="?",
        default="probe",
        choices=("probe", "refiner", "volumes", "reviews"),
        help="temperature of a network, 90 %% intervals of volumes, or the probability that labels of reviewed "
        "segmentations are wrong (default: %(default)s)",
    )
    add_data_option(parser)
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="the model's folder")
    parser.add_argument("--presegmentations", type=Path, metavar="DIR", help="probe: folder written by `presegment`")
    parser.add_argument(
        "--part", help="part of splits.json (default: train for probe and reviews, else validation)"
    )
    parser.set_defaults(run=_run_calibrate)


def _run_train(options: argparse.Namespace) -> None:
    if options.init is not None:
        run_init(options)
        return
    if not options.data:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, "There is nothing to train on.", hint="Give --data DIR with images/ and labels/."
        )
    if options.network is None:
        _run_train_model(options)
        return
    from ..commands.train_network import TrainOptions, train
    from ..datasets.folds import Fold

    joint_with = tuple(_joint_model(text) for text in options.joint_with)
    train(from_namespace(TrainOptions, options, joint_with=joint_with, fold=Fold.parse(options.fold)))


def _run_train_model(options: argparse.Namespace) -> None:
    from ..training.whole_model import LongerTrainingOptions, ModelTrainingOptions, train_longer, train_model

    if options.more_minutes is not None:
        train_longer(from_namespace(LongerTrainingOptions, options))
        print(f"{options.output}: trained for {options.more_minutes:g} minutes more.")
        return
    if options.minutes is None:
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            "How long may the training take?",
            hint="Give --minutes N; they are split over the stages.",
        )
    train_model(from_namespace(ModelTrainingOptions, options))
    print(f"{options.output}: trained; see MODEL_CARD.md there.")


def _joint_model(text: str) -> Any:
    from ..commands.train_network import JointModel

    model, separator, data = text.partition("=")
    if not (model and separator and data):
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"'{text}' is not MODEL=DATA.", hint="Give the model's folder, '=', the data's folder."
        )
    return JointModel(output=Path(model), data=Path(data))


def _run_average(options: argparse.Namespace) -> None:
    from ..training.averaging import average_models

    names = average_models(options.models, options.output)
    print(f"{options.output}: mean of {len(options.models)} models: {', '.join(names)}")


def _run_presegment(options: argparse.Namespace) -> None:
    from ..datasets.folds import Fold
    from ..training.cross_fitting import presegment_fold

    presegment_fold(
        options.model,
        options.data,
        options.output,
        fold=Fold.parse(options.fold),
        part=options.part,
        device=options.device,
    )


def _run_calibrate(options: argparse.Namespace) -> None:
    from ..training.cross_fitting import calibrate, calibrate_refiner
    from ..training.reviewed_calibration import calibrate_reviews
    from ..training.volume_calibration import calibrate_volumes

    if options.target == "volumes":
        volumes = calibrate_volumes(options.model, options.data, part=options.part or "validation")
        print(f"Tail {volumes.tail:.4f}: {100 * volumes.contained:.0f} % of {volumes.organs} volumes are contained.")
        return
    if options.target == "reviews":
        error, regions = calibrate_reviews(options.model, options.data, part=options.part or "train")
        count = 0 if regions is None else regions.regions
        print(f"Reviews are calibrated on {error.scans} scans with {count} regions.")
        return
    if options.target == "refiner":
        temperature = calibrate_refiner(options.model, options.data, part=options.part or "validation")
    elif options.presegmentations is None:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, "The probe's probabilities are missing.", hint="Give --presegmentations DIR."
        )
    else:
        temperature = calibrate(options.model, options.data, options.presegmentations, part=options.part or "train")
    print(f"Temperature {temperature:.3f}")
