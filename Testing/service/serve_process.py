"""The server around the small engine of the worker tests. The argument is JSON: fields of ServiceOptions and limits."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "DiffusionSegment"))

from DiffusionSegmentBackend.process.logs import configure_logging
from DiffusionSegmentBackend.service.limits import ServiceLimits
from DiffusionSegmentBackend.service.server import ServiceOptions, serve

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    configure_logging(show=True)
    paths = {name: Path(given[name]) for name in ("token_file", "tls_cert", "tls_key", "work_dir") if name in given}
    others = {name: given[name] for name in ("port", "worker_command", "address", "cpus_per_session") if name in given}
    limits = ServiceLimits(**given.get("limits", {}))
    serve(ServiceOptions(host="127.0.0.1", limits=limits, **{"port": 0, **others}, **paths))
