"""A trained network as a bundle of the kind ``sequence``, which the engine loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from engine.features.tokens import VERSION, TokenConfig
from engine.scoring.building import HOSTS
from engine.scoring.hosts import Hosts
from engine.scoring.scorer import ScorerConfig
from models.bundle import pack
from models.threshold import Threshold
from probing.training.network import Network
from probing.training.scoring import Aggregate

KIND = "sequence"
NO_HOSTS = Hosts(
    bytes(16), 0
)  # a corpus's hosts are the lab's: nothing is known of the network to be watched


def bundle_of(
    network: Network, trained: int, tokens: TokenConfig, threshold: Threshold, aggregate: Aggregate,
    provenance: Mapping[str, Any],
) -> bytes:  # fmt: skip
    """The bytes of a network's bundle. trained: steps of its training. Raises BundleError."""
    shape = network.shape
    hashes, hosts = NO_HOSTS.state()
    config = {
        "lstm": {"inputs": shape.inputs, "hidden": shape.hidden, "layers": shape.layers},
        "tokens": {
            "policy": tokens.policy, "encoder": tokens.encoder, "identity": tokens.identity, "version": VERSION,
        },
        "scorer": asdict(ScorerConfig(aggregate=aggregate, known_hosts=0)),
        "threshold": asdict(threshold),
        "trained": trained,
        HOSTS: hosts,
    }  # fmt: skip
    return pack({**network.arrays(), HOSTS: hashes}, config, provenance, kind=KIND)
