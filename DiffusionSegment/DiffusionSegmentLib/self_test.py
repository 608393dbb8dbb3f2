"""The self-test for "Reload and Test" and ctest in Slicer: the worker answers, and the phantom is segmented."""

import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.messages import Answer, SelfTest, SelfTestReport
from DiffusionSegmentBackend.schema.self_test_findings import SelfTestFindings

from .installation import planInstallation
from .sample_data import addPhantom
from .scene.result import findResult
from .scene.segmented_scan import readReport
from .scripting import Scripting
from .worker.client import WorkerClient
from .worker.transport import QProcessTransport, processEvents

# The spacing of the model, and a small field of view, so that slow computers finish in time.
_SPACING_MM = (3.0, 3.0, 3.0)
_SIZE_MM = (300.0, 220.0, 200.0)


def runSelfTest() -> None:
    """Run the self-test of the worker, then segment the phantom; without torch that must be refused.

    Raises:
        AssertionError: a check failed.
        DiffusionSegmentError: the run failed.
    """
    report = askWorker()
    assert bool(report.torch) == ("torch" not in report.missing), "the worker does not know its own packages"
    scripting = Scripting(lambda: WorkerClient(QProcessTransport), processEvents)
    try:
        if planInstallation().missing:
            checkRefusal(scripting)
        else:
            checkSegmentation(scripting)
    finally:
        scripting.close()


def askWorker() -> SelfTestFindings:
    """The self-test report of the worker.

    Raises:
        AssertionError: the worker could not be started, or failed.
    """
    answers: list[Answer] = []
    errors: list[DiffusionSegmentError] = []
    client = WorkerClient(QProcessTransport)
    client.finished.connect(answers.append)
    client.failed.connect(lambda _, error: errors.append(error))
    client.ask(SelfTest, device="cpu")
    while not answers and not errors:
        processEvents()
    client.close()
    assert not errors, str(errors[0])
    assert isinstance(answers[0], SelfTestReport)
    return answers[0].report


def checkRefusal(scripting: Scripting) -> None:
    """Check that a run without the required packages is refused with the next step.

    Raises:
        AssertionError: it was not refused.
    """
    refusal: DiffusionSegmentError | None = None
    try:
        scripting.segment(addPhantom(slicer.mrmlScene, spacingMm=_SPACING_MM, sizeMm=_SIZE_MM))
    except DiffusionSegmentError as error:
        refusal = error
    assert refusal is not None, "a run without its packages should be refused"
    assert refusal.code is ErrorCode.NO_TORCH, str(refusal)
    assert refusal.hint, "the refusal does not name the next step"


def checkSegmentation(scripting: Scripting) -> None:
    """Check that the organs of the phantom and their uncertainty are put into the scene.

    Raises:
        AssertionError: something is missing.
        DiffusionSegmentError: the run failed.
    """
    stages: list[str] = []
    scan = addPhantom(slicer.mrmlScene, spacingMm=_SPACING_MM, sizeMm=_SIZE_MM)
    segmentation = scripting.segment(
        scan, progress=lambda stage, done, total: stages.append(stage), samples=1, steps=1, device="cpu", force=True
    )
    assert "refine" in stages, "no progress was reported"
    assert segmentation.GetSegmentation().GetSegment("liver") is not None, "the phantom has a liver"
    assert findResult(segmentation).overlays, "there is no uncertainty overlay"
    assert readReport(segmentation).provenance.plan.model == "abdomen-ct"
