"""How unpacked layers lie on the disk: with users of their own where we are root, all ours where we are not."""

import os
from dataclasses import dataclass

FIRST_ID, NUM_IDS = 0x50000000, 65536
"""Users outside that stand for an image's users 0 to 65535; of a range no distribution hands out."""
NOBODY = 65534


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavor:
    """What of an image's files can be kept.

    Attributes:
        name: of the folder that its layers lie in.
        first_id: the user outside that stands for the image's root; None: every file is ours.
        opaque: the extended attribute by which overlayfs knows a folder that hides what is below.
    """

    name: str
    first_id: int | None
    opaque: str

    def outside(self, number: int) -> int:
        """The user or group outside that stands for one of the image's; ours where there is but one."""
        if self.first_id is None:
            return -1
        return self.first_id + (number if 0 <= number < NUM_IDS else NOBODY)


AS_ROOT = Flavor(name="root", first_id=FIRST_ID, opaque="trusted.overlay.opaque")
AS_USER = Flavor(name="user", first_id=None, opaque="user.overlay.opaque")


def own_flavor() -> Flavor:
    return AS_ROOT if os.geteuid() == 0 else AS_USER
