"""The extension as one file: `python Testing/packaging/extension_zip.py -o build` writes DiffusionSegment-VERSION.zip.

It holds the files that CMake installs, in a folder DiffusionSegment that Slicer takes as an additional module path. The
same files give the same bytes.
"""

from __future__ import annotations

import argparse
import re
import zipfile
from pathlib import Path

from cmake_lists import MODULE, installed_resources, installed_scripts

ROOT = Path(MODULE).parent
TEXTS = ("LICENSE.txt", "CHANGELOG.md")
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MODE = 0o644 << 16


def version() -> str:
    """The version of the packages, read without importing them."""
    text = (MODULE / "DiffusionSegmentBackend" / "__init__.py").read_text(encoding="utf-8")
    (found,) = re.findall(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    return str(found)


def write_extension_zip(folder: Path) -> Path:
    """Write the zip file into `folder`, which is created, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {f"{MODULE.name}/{path}": MODULE / path for path in (*installed_scripts(), *installed_resources())}
    files |= {f"{MODULE.name}/{name}": ROOT / name for name in TEXTS}
    target = folder / f"{MODULE.name}-{version()}.zip"
    partial = target.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr, entry.compress_type = _MODE, zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name].read_bytes())
    partial.replace(target)
    return target


def main() -> None:
    """Write the zip file and print its path and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "build", metavar="DIR")
    path = write_extension_zip(parser.parse_args().output)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
