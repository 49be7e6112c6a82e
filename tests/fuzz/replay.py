"""What the fuzzer does with an input, also without the fuzzer: read it as a capture, decode what it holds."""

from __future__ import annotations

import os
import tempfile

from connectors.files.pcap import CaptureFile
from connectors.files.window import CaptureError
from engine.headers.cursor import TUNNELS
from engine.headers.decode import DecodeConfig, decode
from engine.types import Reason

CONFIGS = (DecodeConfig(), DecodeConfig(tunnels=tuple(TUNNELS), max_depth=3))


def replay(data: bytes) -> int:
    """Frames in `data`, whatever that is; fails only on what may never happen."""
    frames = 0
    with tempfile.NamedTemporaryFile() as file:
        os.write(file.fileno(), data)
        with CaptureFile(file.name, frames_per_block=64) as capture:
            try:
                for block in capture:
                    assert (block.start + block.captured <= block.buffer.size).all()
                    assert (block.wire >= block.captured).all()
                    for config in CONFIGS:
                        p = decode(block, config)
                        assert p.ts.size == len(block)
                        assert (p.reason < len(Reason)).all()
                        assert (p.payload <= p.ip_size).all()
                    frames += len(block)
            except CaptureError:
                pass
    return frames
