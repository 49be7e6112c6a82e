"""One file for each question; run each with ``python -m benchmarks.NAME --json OUT``. They may import everything."""
