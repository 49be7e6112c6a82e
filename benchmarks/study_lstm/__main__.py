"""Run the study: train what is missing, judge, write study.json, figures and the tables of the page."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.measure import commit, machine
from benchmarks.study_lstm import figures, judging, labels
from benchmarks.study_lstm.data import Parts, parts
from benchmarks.study_lstm.nets import TO_THE_END, Net, arrays_of, train_all
from engine.features.tokens import POLICIES
from probing.training.scoring import connection_scores, packet_scores
from probing.training.sequences import ATTACK, UNSURE, Sequences, truth

SIZES: dict[str, dict[str, Any]] = {
    "full": {
        "policies": POLICIES, "vantages": ("client", "server"), "mixes": ("none", "faults15"), "nets": 5,
        "recipe": {"steps": 1000, "batch": 64}, "to_the_end": ("keep", "no-acks", "stream"),
    },
    "ci": {
        "policies": ("keep", "no-acks", "stream"), "vantages": ("client",), "mixes": ("none",), "nets": 3,
        "recipe": {"steps": 600, "batch": 64}, "to_the_end": (),
    },
}  # fmt: skip


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--corpora", type=Path, required=True, help="folder of sqli, sqli-faults and sqli-sweep"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=tuple(SIZES), default="full")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    size = SIZES[given.size]
    folder = given.out / "nets"
    nets = [
        Net(policy, vantage, mix, seed)
        for vantage in size["vantages"] for policy in size["policies"] for mix in size["mixes"]
        for seed in range(1, size["nets"] + 1)
    ]  # fmt: skip
    nets += [net for policy in size["to_the_end"] for net in nets_of(policy, "client", TO_THE_END, size)]
    train_all(nets, given.corpora, folder, size["recipe"], given.jobs)
    result: dict[str, Any] = {"size": given.size, "commit": commit(), "machine": machine(), "cells": []}
    for vantage in size["vantages"]:
        print(f"judging: {vantage}", file=sys.stderr, flush=True)
        judge(result, vantage, size, given)
    text = json.dumps(rounded(result), separators=(",", ":"), allow_nan=False)
    given.out.joinpath("study.json").write_text(text + "\n")
    figures.by_link(result["cells"], size["policies"], given.out / "by-link.svg")


def rounded(value: Any) -> Any:
    """The same with five places after the point."""
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def judge(result: dict[str, Any], vantage: str, size: dict[str, Any], given: argparse.Namespace) -> None:
    """Add everything of a vantage to the result."""
    folder = given.out / "nets"
    data = {policy: parts(given.corpora, vantage, policy) for policy in size["policies"]}
    check_same(data)
    test = judging.test_of(data["keep"].test)
    result.setdefault("connections", {})[vantage] = dict(counted(data["keep"], test))
    for mix in size["mixes"]:
        said = {
            policy: judging.judged(nets_of(policy, vantage, mix, size), folder, data[policy])
            for policy in size["policies"]
        }
        for setting in judging.SETTINGS:
            found = judging.resampled(said, test, test.chosen(setting), judging.HOW, same=False)
            for policy in size["policies"]:
                result["cells"].append({
                    "policy": policy, "vantage": vantage, "mix": mix, "link": setting, "nets": size["nets"],
                    **judging.cell(found, policy),
                })  # fmt: skip
            put(result, "retrained", vantage, mix, setting, judging.differences(found))
            seen = {p: j._replace(plain=j.seen) for p, j in said.items() if j.seen is not None}
            if seen:
                other = judging.resampled(seen, test, test.chosen(setting), judging.HOW, same=False)
                cells = {policy: judging.cell(other, policy) for policy in seen}
                put(result, "threshold_with_faults", vantage, mix, setting, cells)
            plain = judging.resampled(
                said, test, test.chosen(setting, mirrored=False), judging.HOW, same=False
            )
            cells = {policy: judging.cell(plain, policy) for policy in said}
            put(result, "without mirrored visits", vantage, mix, setting,
                {"cells": cells, "differences": judging.differences(plain)})  # fmt: skip
        result.setdefault("failed_attacks", {})[f"{vantage}, {mix}"] = judging.failed(said, test)
    for origin, family in judging.FAMILIES.items():
        own = [policy for policy in family if policy in size["policies"]]
        said = {p: judging.judged(nets_of(origin, vantage, "none", size), folder, data[p]) for p in own}
        for setting in judging.SETTINGS:
            found = judging.resampled(said, test, test.chosen(setting), judging.HOW, same=True)
            cells = {policy: judging.cell(found, policy) for policy in own}
            put(result, f"same nets, trained with {origin}", vantage, "none", setting,
                {"cells": cells, "differences": judging.differences(found)})  # fmt: skip
    ended = size["to_the_end"] if vantage == "client" else ()
    if ended:
        said = {p: judging.judged(nets_of(p, vantage, TO_THE_END, size), folder, data[p]) for p in ended}
        for setting in judging.SETTINGS:
            found = judging.resampled(said, test, test.chosen(setting), judging.HOW, same=False)
            cells = {policy: judging.cell(found, policy) for policy in ended}
            put(result, "trained to the end", vantage, "none", setting,
                {"cells": cells, "differences": judging.differences(found)})  # fmt: skip
    result.setdefault("baseline", {})[vantage] = {
        k: e._asdict() for k, e in judging.baseline(data["keep"], test)
    }
    picture(result, vantage, size, given, data)


def nets_of(policy: str, vantage: str, mix: str, size: dict[str, Any]) -> list[Net]:
    """The nets of a cell."""
    return [Net(policy, vantage, mix, seed) for seed in range(1, size["nets"] + 1)]


def put(result: dict[str, Any], *place: Any) -> None:
    """Put the last argument at the place that the others name."""
    *names, last, value = place
    for name in names:
        result = result.setdefault(name, {})
    result[last] = value


def counted(data: Parts, test: judging.Test) -> Iterator[tuple[str, Any]]:
    """Numbers of connections of each part."""
    for name in (
        "train",
        "held_out",
        "mixed",
        "mixed_held_out",
        "calibrate",
        "calibrate_faults",
        "test",
        "sweep",
    ):
        part = getattr(data, name)
        if part is not None:
            known = truth(part.labels)
            yield name, {"benign": int((known == 0).sum()), "attacks": int((known == ATTACK).sum()),
                         "failed attacks": int((known == UNSURE).sum())}  # fmt: skip
    for setting in judging.SETTINGS:
        at = test.chosen(setting)
        yield f"test, {setting}", {
            "benign": int((~test.attack[at]).sum()), "attacks": int(test.attack[at].sum()),
            "runs": int(np.unique(test.unit[at]).size),
        }  # fmt: skip


def check_same(data: dict[str, Parts]) -> None:
    """Raise ValueError unless the test parts of all policies hold the same connections in the same order."""
    keys = {policy: key_of(part.test) for policy, part in data.items()}
    for policy, key in keys.items():
        if key != keys["keep"]:
            raise ValueError(f"{policy}: not the same test connections as keep")


def key_of(data: Sequences) -> list[tuple[Any, ...]]:
    """What names each connection."""
    columns = [data.labels.column(name) for name in ("src", "sport", "dst", "start")]
    columns[-1] = columns[-1].cast(pa.int64())
    return list(zip(*(column.to_pylist() for column in columns)))


def picture(result: dict[str, Any], vantage: str, size: dict[str, Any], given: argparse.Namespace,
            data: dict[str, Parts]) -> None:  # fmt: skip
    """Correlations and figures of a vantage."""
    folder, before, after = given.out / "nets", data[figures.BEFORE], data[figures.AFTER]
    swept = before.sweep if before.sweep is not None else before.test
    pairs = {}
    for policy, part in ((figures.BEFORE, before), (figures.AFTER, after)):
        own = part.sweep if part.sweep is not None else part.test
        said = [
            connection_scores(own, packet_scores(arrays_of(net, folder), own))
            for net in nets_of(policy, vantage, "none", size)
        ]
        pairs[policy] = np.array(said)
        known = truth(own.labels)
        plain = judging.judged(nets_of(policy, vantage, "none", size), folder, part).plain
        good = known != UNSURE
        put(result, "correlations", vantage, policy, labels.correlations(
            own.chosen(good), pairs[policy][:, good], plain, known[good] == ATTACK, judging.HOW))  # fmt: skip
    figures.by_factor(
        swept, pairs[figures.BEFORE], pairs[figures.AFTER], given.out / f"by-factor-{vantage}.svg"
    )
    packets, limits = {}, {}
    for policy, part in ((figures.BEFORE, before), (figures.AFTER, after)):
        net = Net(policy, vantage, "none", 1)
        packets[policy] = packet_scores(arrays_of(net, folder), part.test)
        limits[policy] = float(judging.judged([net], folder, part).plain[0])
    tests = {figures.BEFORE: before.test, figures.AFTER: after.test}
    shown = figures.twins(tests, packets, limits, given.out / f"twins-{vantage}.svg")
    result.setdefault("twins", {})[vantage] = shown


if __name__ == "__main__":
    main()
