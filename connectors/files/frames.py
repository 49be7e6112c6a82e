"""Raw frames of one read, left in the buffer they were read into."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class FrameBlock:
    """n frames in capture order; frame i is ``buffer[start[i] : start[i] + captured[i]]``.

    The buffer may be a mapped file or a kernel ring with record headers between the frames, so nothing is copied. Its
    bytes are read-only and stay valid as long as the block lives; those of a tap stay valid until its next block is
    requested.
    """

    buffer: NDArray[np.uint8]  # (m,) bytes
    start: NDArray[np.int64]  # (n,) index of a frame's first byte in buffer
    captured: NDArray[np.uint32]  # (n,) bytes of the frame that are in buffer
    wire: NDArray[np.uint32]  # (n,) bytes of the frame on the wire, >= captured
    ts: NDArray[np.int64]  # (n,) ns since the epoch, UTC
    link_type: NDArray[np.uint16]  # (n,) LINKTYPE_ value of the frame's interface
    dropped: int = 0  # frames lost by the source since the last block
    now: int | None = None  # ns; from a tap: no earlier frame is still to come

    def __len__(self) -> int:
        return int(self.ts.size)
