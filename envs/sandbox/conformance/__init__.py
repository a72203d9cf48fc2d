"""What every sandbox must do, as checks that the author of a backend can run on it.

May import: sandbox.
Begin at: the list CHECKS below.

``CHECKS`` hold for every backend, ``ISOLATION_CHECKS`` for those that contain what runs in them. Each check is a
coroutine function that takes a backend, makes its own sandboxes, and raises AssertionError saying what differed::

    for check in (*CHECKS, *ISOLATION_CHECKS):
        asyncio.run(check(MyBackend()))
"""

from dataclasses import replace

from ..launch import base_python_binds
from ..types import Sandbox, SandboxBackend, SandboxSpec
from .expect import Check
from .files import check_files
from .isolation import check_binds, check_invisible, check_network
from .leaks import check_leaks
from .limits import check_file_size, check_full_disk, check_many_files, check_memory, check_processes
from .processes import check_cancellation, check_close, check_parallel, check_run, check_run_beside_shell
from .session import check_deadline, check_desync, check_output, check_session

CHECKS: tuple[Check, ...] = (
    check_session,
    check_desync,
    check_output,
    check_deadline,
    check_run,
    check_run_beside_shell,
    check_files,
    check_cancellation,
    check_parallel,
    check_close,
    check_memory,
    check_file_size,
    check_leaks,
)
ISOLATION_CHECKS: tuple[Check, ...] = (
    check_processes,
    check_full_disk,
    check_many_files,
    check_network,
    check_invisible,
    check_binds,
)


class InImage:
    """A backend whose sandboxes are of one image where a check names none."""

    def __init__(self, backend: SandboxBackend, image: str) -> None:
        self.name, self._backend, self._image = f"{backend.name} ({image})", backend, image

    async def create(self, spec: SandboxSpec) -> Sandbox:
        binds = tuple(bind for bind in spec.binds if bind not in base_python_binds())  # the image has its own libc
        return await self._backend.create(replace(spec, image=spec.image or self._image, binds=binds))
