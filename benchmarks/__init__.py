"""One file a question; each ``python -m benchmarks.NAME --json OUT``. May import everything, imported by nobody."""
