"""The labels that metrics carry, with a bound on their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.labels.rules import Probes


class Slices:
    """Values of the slice labels by probe id.

    The first ``max_values`` values of a label, in the order in which their probes appear, keep their names; all others
    become ``other``. A label that a probe lacks is "".
    """

    def __init__(self, names: Sequence[str] = (), max_values: int = 32) -> None:
        self.names = tuple(names)
        self._max_values = max_values
        self._kept: dict[str, set[str]] = {name: set() for name in names}
        self._values: dict[int, tuple[str, ...]] = {}
        self._folded: dict[int, tuple[str, ...]] = {}

    def meet(self, probes: Probes) -> None:
        """Give new probes their values."""
        if len(probes) == len(self._values):  # probes are never removed
            return
        for probe, labels in probes.items():
            if probe not in self._values:
                self._meet(probe, labels)

    def _meet(self, probe: int, labels: Mapping[str, str]) -> None:
        row, lost = [], []
        for name in self.names:
            value, kept = labels.get(name, ""), self._kept[name]
            if value and value not in kept:
                if len(kept) < self._max_values:
                    kept.add(value)
                else:
                    value = "other"
                    lost.append(name)
            row.append(value)
        self._values[probe], self._folded[probe] = tuple(row), tuple(lost)

    def values(self, probe: int) -> tuple[str, ...]:
        """Values of a probe that was met; of any other probe, those of a probe without labels."""
        return self._values.get(probe, ("",) * len(self.names))

    def folded(self, probe: int) -> tuple[str, ...]:
        """Names of the labels whose value became ``other``."""
        return self._folded.get(probe, ())
