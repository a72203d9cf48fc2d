"""Inside a container that another program made for us: the guest builds a root of its own over that container's.

Runs as the last module of the guest (boot.py), with the rights of the container's root.
"""

import encodings.ascii
import encodings.latin_1  # noqa: F401 - once the root is the image's, nothing is imported any more (guest/image.py)
import gzip  # noqa: F401
import os
import shutil  # noqa: F401
import tarfile  # noqa: F401
import warnings  # noqa: F401

from verigym_guest import main as guest  # type: ignore[import-not-found] - only inside
from verigym_guest import system  # type: ignore[import-not-found] - only inside


def main():
    # A container's /dev may be a small one (Apptainer's has no "full").
    system.DEVICES = tuple(one for one in system.DEVICES if os.path.exists("/dev/" + one))
    guest.main()
