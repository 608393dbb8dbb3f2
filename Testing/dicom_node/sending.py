"""A sender of images: what a scanner or an archive does, and what goes wrong on the way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

SENDER = "SCANNER"


def associate(
    port: int, files: Sequence[Path] = (), *, aet: str = SENDER, called: str = "DIFFSEG", **tls: Any
) -> Association:
    """An association for the classes and transfer syntaxes of these files."""
    metas = [dcmread(path, stop_before_pixels=True).file_meta for path in files]
    kinds = {(str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)) for meta in metas}
    contexts = [build_context(Verification), *(build_context(uid, syntax) for uid, syntax in sorted(kinds))]
    entity = AE(ae_title=aet)
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = 20.0
    return entity.associate("127.0.0.1", port, contexts=contexts, ae_title=called, **tls)


def files_of(folder: Path) -> list[Path]:
    """The files of a series in the order of their names."""
    return sorted(folder.glob("*.dcm"))


def send(port: int, files: Iterable[Path], *, abort: bool = False, aet: str = SENDER) -> list[int]:
    """Send files on one association, which is aborted at the end on request; the status of each."""
    paths = list(files)
    association = associate(port, paths, aet=aet)
    assert association.is_established
    statuses = []
    try:
        for path in paths:
            statuses.append(int(association.send_c_store(path).Status))
    finally:
        with suppress(RuntimeError):
            association.abort() if abort else association.release()
    return statuses
