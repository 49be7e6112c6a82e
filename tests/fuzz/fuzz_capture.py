"""Coverage-guided fuzzing of the capture reader and the decoder.

    NUMBA_DISABLE_JIT=1 python -m tests.fuzz.fuzz_capture [libFuzzer options] FOLDER...

Needs atheris (extra `fuzz`). Without compiled kernels, so that coverage sees their lines. The first folder
gets the inputs that reach something new, the others are read; start with tests/fuzz/corpus as the second.
What it finds goes into tests/fuzz/corpus, where a test reads it again for ever.
"""

from __future__ import annotations

import sys
import warnings

import atheris

with atheris.instrument_imports(include=["connectors", "engine"]):
    from tests.fuzz.replay import replay


def one_input(data: bytes) -> None:
    replay(data)


def main() -> None:
    warnings.simplefilter("error")  # an overflow of an integer would be one
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
