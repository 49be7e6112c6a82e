"""The settings of lab files: links, load, activities, scenarios and corpora, checked before anything is made."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from probing.lab import trace
from probing.lab.errors import LabError

Percent = Annotated[float, Field(ge=0, le=100)]
Range = Annotated[str, Field(pattern=r"^\d{1,9}-\d{1,9}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")]

DISTRIBUTIONS = ("uniform", "normal", "pareto", "paretonormal")
TERMINATIONS = ("fin", "rst", "sudden", "timeout", "refused", "none")
MAX_USERS, MAX_SERVERS, MAX_CLIENTS = 64, 9, 240  # most hosts of a run; addresses .1 to .9 and .10 to .249
MTU = 1500
AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
# a user's pace is a factor of e to the power of ±MOST_PACE at most, the spread of their think times a sigma of at most
# MOST_SPREAD; both law and sum are cut off, so that no server closes a connection while its user thinks
MOST_PACE, LEAST_SPREAD, MOST_SPREAD, THINK_SIGMAS, LONGEST_THINK_S = 0.7, 0.3, 0.9, 3.0, 20.0
LEAST_QUOTA = 0.2  # least quota in percent: the kernel grants at least 1 ms, in a period of at most a second


class Model(BaseModel):
    """A section of a lab file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Link(Model):
    """One client's access to the network, alike in both directions; where tc-netem(8) has a parameter, it is that."""

    delay_ms: float = Field(0, ge=0, le=10_000)  # delay of one direction; a round trip takes twice as long
    jitter_ms: float = Field(0, ge=0, le=10_000)  # standard deviation of the delay (uniform: half width)
    # the same for a part of the delay in which a packet that is late holds back its successors
    ordered_jitter_ms: float = Field(0, ge=0, le=10_000)
    distribution: Literal["uniform", "normal", "pareto", "paretonormal"] = "normal"  # law of both jitters
    loss_pct: Percent = 0  # share of packets that are dropped, each by itself
    burst_loss_pct: Percent = 0  # share of packets that are dropped in bursts
    burst_packets: float = Field(0, ge=0, le=10_000)  # mean length of a burst of losses; 0: there are none
    outage_every_ms: float = Field(0, ge=0, le=3_600_000)  # mean time from an outage to the next; 0: none
    outage_ms: float = Field(0, ge=0, le=600_000)  # mean duration of an outage, in which nothing is carried
    reorder_pct: Percent = 0  # share of packets that do not wait for the delay and so overtake others
    duplicate_pct: Percent = 0  # share of packets that are sent twice
    corrupt_pct: Percent = 0  # share of packets in which one bit is flipped
    rate_kbit: float = Field(0, ge=0, le=10_000_000)  # rate of the link; 0: no limit
    delivery_trace: str = ""  # file of a delivery trace in mahimahi's format, in place of a rate; "": none
    queue_packets: int = Field(1000, ge=1, le=10_000)  # most packets that wait; the next is dropped
    queue_discipline: Literal["drop-tail", "codel"] = "drop-tail"
    cross_kbit: float = Field(0, ge=0, le=10_000_000)  # mean rate of a competitor's frames in the queue
    # side towards which packets are impaired; delay, queue and outages hold in both directions
    impaired: Literal["both", "server", "client"] = "both"
    congestion_control: Annotated[str, Field(pattern=r"^[a-z0-9_-]{0,15}$")] = ""  # "": the kernel's own
    mtu: int = Field(MTU, ge=576, le=9000)  # bytes of the largest packet of the client and of its server
    segmentation_offload: Literal["off", "on"] = "off"  # on: hosts hand over super-frames of up to 64 KB

    @field_validator("segmentation_offload", mode="before")
    @classmethod
    def _word(cls, given: Any) -> Any:
        """The word for a YAML file's true or false."""
        return {True: "on", False: "off"}[given] if isinstance(given, bool) else given

    @field_validator("congestion_control")
    @classmethod
    def _known(cls, given: str) -> str:
        try:
            known = AVAILABLE.read_text().split()
        except OSError:  # not on Linux: planned here, run elsewhere
            return given
        if given and given not in known:
            raise ValueError(
                f"the kernel has {', '.join(known)} (a further one is loaded by modprobe tcp_NAME)"
            )
        return given

    @field_validator("delivery_trace")
    @classmethod
    def _readable(cls, given: str) -> str:
        """The absolute path of a trace that can be read."""
        if not given:
            return ""
        path = Path(given).absolute()
        try:
            trace.read(path)
        except LabError as error:
            raise ValueError(str(error)) from None
        return str(path)

    @model_validator(mode="after")
    def _possible(self) -> Link:
        for key, needed, why in (
            ("reorder_pct", "delay_ms", "a packet overtakes those that are delayed"),
            ("burst_packets", "burst_loss_pct", "it says how long bursts are, not how many packets are lost"),
            ("burst_loss_pct", "burst_packets", "the mean length of a burst of losses"),
            ("outage_ms", "outage_every_ms", "the mean time from an outage to the next"),
            ("outage_every_ms", "outage_ms", "the mean duration of an outage"),
        ):
            if getattr(self, key) and not getattr(self, needed):
                raise ValueError(f"{key} needs {needed}: {why}")
        if self.rate_kbit and self.delivery_trace:
            raise ValueError("rate_kbit and delivery_trace exclude each other: a trace has a rate of its own")
        for key in ("cross_kbit", "queue_discipline"):
            if getattr(self, key) not in (0, "drop-tail") and not (self.rate_kbit or self.delivery_trace):
                raise ValueError(f"{key} needs rate_kbit or delivery_trace: nothing waits without one")
        self._possible_bursts()
        return self

    def _possible_bursts(self) -> None:
        if not self.burst_loss_pct:
            return
        if self.burst_packets < 1:
            raise ValueError(f"burst_packets {self.burst_packets:g} must be at least 1")
        if self.burst_begins > 1:
            most = 100 * self.burst_packets / (self.burst_packets + 1)
            raise ValueError(
                f"burst_loss_pct {self.burst_loss_pct:g} must be at most {most:.4g} with burst_packets "
                f"{self.burst_packets:g}: a packet passes between two bursts"
            )

    @property
    def burst_begins(self) -> float:
        """The chance that a burst of losses begins at a packet outside of one."""
        if not self.burst_loss_pct:
            return 0.0
        share = min(self.burst_loss_pct / 100, 1 - 1e-9)
        return share / (1 - share) / self.burst_packets


class Load(Model):
    """The load of the server's processors."""

    quota_pct: float = Field(0, ge=0, le=100)  # share of one processor that the server may use; 0: no limit
    hogs: int = Field(0, ge=0, le=64)  # busy loops that compete with the server for its processor

    @model_validator(mode="after")
    def _possible(self) -> Load:
        if 0 < self.quota_pct < LEAST_QUOTA:
            raise ValueError(f"quota_pct {self.quota_pct:g} must be 0 (no limit) or at least {LEAST_QUOTA:g}")
        return self

    @property
    def name(self) -> str:
        """The label of this load: none, quota-5, hogs-3 or quota-5-hogs-3."""
        parts = [f"quota-{self.quota_pct:g}"] if self.quota_pct else []
        parts += [f"hogs-{self.hogs}"] if self.hogs else []
        return "-".join(parts) or "none"


class Parameters(Model):
    """Parameters of activities; each activity's description names those that it uses."""

    content_bytes: int | Range = (
        "200-20000"  # size of a transfer, or a range from which it is drawn log-uniformly
    )
    content_kind: Literal["text", "binary"] = "text"  # kind of content: text compresses, binary does not
    content_fixed: bool = (
        False  # True: sizes and numbers of messages are the middle of their ranges, not drawn
    )
    requests: int = Field(4, ge=1, le=10_000)  # number of requests in one connection
    pause_ms: float = Field(0, ge=0, le=60_000)  # pause between requests, commands or messages
    cache: Literal["cold", "warm"] = (
        "cold"  # state of the client; warm: it has been here before (validators, known hosts)
    )
    termination: Literal["fin", "rst", "sudden", "timeout"] = "fin"  # way in which connections end
    # seconds that a run goes on after its last sudden termination, in which senders try again
    after_sudden_s: float = Field(15, ge=0, le=600)
    hosts: int = Field(2, ge=2, le=4)  # number of hosts that synchronise
    quiet_s: float = Field(5, ge=0, le=3600)  # seconds of ordinary traffic before an attack on a segment
    attack_s: float = Field(5, gt=0, le=3600)  # seconds that such an attack lasts
    packets: int = Field(2000, ge=1, le=100_000)  # number of messages of a flood
    rate_pps: float = Field(2000, gt=0, le=20_000)  # messages of a flood a second
    guesses: int = Field(8, ge=1, le=1000)  # number of passwords to try
    ports: int = Field(100, ge=1, le=65_535)  # number of ports that a scan asks
    # median think time of a user before a request; log-normal, with a pace and a spread of each user's own; 0: none
    think_ms: float = Field(0, ge=0, le=10_000)
    # share of benign visits that send long harmless requests, each as long as a request of an injection
    mirrored_pct: Percent = 15
    parts: int = Field(
        1, ge=1, le=1000
    )  # number of samples that share a list of passwords; each tries its own part

    @model_validator(mode="after")
    def _possible(self) -> Parameters:
        low, high = self.size_range
        if not 0 <= low <= high <= 100_000_000:
            raise ValueError(
                f"content_bytes {self.content_bytes} must lie between 0 and 100000000, the smaller first"
            )
        if self.parts > self.guesses:
            raise ValueError(
                f"parts {self.parts} must be at most guesses {self.guesses}: each part has a password"
            )
        return self

    @property
    def longest_think_s(self) -> float:
        """The longest think time of any user."""
        return min(LONGEST_THINK_S, self.think_ms / 1e3 * math.exp(MOST_PACE + THINK_SIGMAS * MOST_SPREAD))

    @property
    def size_range(self) -> tuple[int, int]:
        """The least and the greatest size of a transfer."""
        if isinstance(self.content_bytes, int):
            return self.content_bytes, self.content_bytes
        low, high = self.content_bytes.split("-")
        return int(low), int(high)


class Activity(Model):
    """An activity of the clients of a scenario."""

    about: str
    clients: tuple[Name, ...] = ()  # implementations that can do it; empty: all of the scenario
    servers: tuple[Name, ...] = ()  # implementations that can serve it; empty: all of the scenario
    attack: bool = False
    attack_kind: str = "none"
    phases: tuple[str, ...] = ()  # names of the phases that its clients mark
    terminations: tuple[str, ...] = ("fin",)  # ways in which its connections can end
    parameters: dict[str, Any] = {}  # defaults that differ from those of Parameters


class Scenario(Model):
    """A server, its clients and what they do."""

    name: Name
    task: Name
    about: str
    servers: tuple[Name, ...]
    clients: tuple[Name, ...]
    activities: dict[Name, Activity]
    parameters: dict[str, Any] = {}
    pairs: dict[
        Name, tuple[Name, ...]
    ] = {}  # servers that a client can talk to; a client that is not named: all
    arp: bool = False  # True: hosts find each other by ARP; False: they know each other's MACs
    several_hosts: bool = False  # True: a user is parameters.hosts - 1 hosts, not one

    @model_validator(mode="after")
    def _consistent(self) -> Scenario:
        for client, servers in self.pairs.items():
            if client not in self.clients or not set(servers) <= set(self.servers):
                raise ValueError(
                    f"pairs: {client}: {', '.join(servers)}: not clients and servers of this scenario"
                )
        for name, activity in self.activities.items():
            for client in activity.clients:
                if client not in self.clients:
                    raise ValueError(
                        f"activity {name}: client {client} is not one of {', '.join(self.clients)}"
                    )
            for server in activity.servers:
                if server not in self.servers:
                    raise ValueError(
                        f"activity {name}: server {server} is not one of {', '.join(self.servers)}"
                    )
            for way in activity.terminations:
                if way not in TERMINATIONS:
                    raise ValueError(
                        f"activity {name}: termination {way} is not one of {', '.join(TERMINATIONS)}"
                    )
            Parameters(**(self.parameters | activity.parameters))
        return self

    def clients_of(self, activity: str) -> tuple[str, ...]:
        """The client implementations that can do an activity."""
        return self.activities[activity].clients or self.clients

    def check_ending(self, activity: str, given: dict[str, Any], where: str) -> None:
        """Raise LabError when an activity cannot end in the way that is asked for."""
        wanted = given.get("termination", [])
        for way in wanted if isinstance(wanted, list) else [wanted]:
            if way not in self.activities[activity].terminations:
                ways = ", ".join(self.activities[activity].terminations)
                raise LabError(f"{where}: parameters.termination {way}: {activity} can end by {ways}")

    def fits(self, client: str, server: str) -> bool:
        """Whether a client can talk to a server."""
        return server in self.pairs.get(client, self.servers)

    def servers_of(self, activity: str) -> tuple[str, ...]:
        """The server implementations that can serve an activity."""
        return self.activities[activity].servers or self.servers


class Background(Model):
    """The work of other users, repeated until the run is over."""

    scenario: Name
    server: Name
    client: Name
    activity: Name
    users: int = Field(1, ge=1, le=MAX_USERS)
    pause_ms: float = Field(200, ge=0, le=600_000)  # mean pause; pauses are exponential
    link: Link = Link()
    parameters: dict[str, Any] = {}


class Design(Model):
    """Factors whose levels are crossed; each cell is a setting, with `copies` runs."""

    factors: dict[str, Annotated[tuple[Any, ...], Field(min_length=2)]] = Field(min_length=1)
    fraction: Annotated[str, Field(pattern=r"^1(/[2-9])?$")] = "1"  # share of the cells that have runs

    @property
    def parts(self) -> int:
        """Number of fractions that make a full design."""
        return int(self.fraction.partition("/")[2] or 1)


class Entry(Model):
    """Runs of a corpus. A list in place of a value makes a run for each of its values; ``all``: all that fit."""

    scenario: Name
    server: Any = "all"
    client: Any = "all"
    activity: Any = "all"
    link: dict[str, Any] = {}
    load: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    samples: int = Field(1, ge=1, le=100_000)  # repetitions of the activity in a run
    users: int = Field(1, ge=1, le=MAX_USERS)  # hosts that share the samples and work at the same time
    copies: int = Field(1, ge=1, le=10_000)  # runs of each setting, with seeds of their own
    # settings of the link; each sample is done once under each, with all else equal
    twins: tuple[dict[str, Any], ...] = ()
    background: tuple[Background, ...] = ()
    group: str = ""  # name of the setting in analyses
    part: Literal["", "train", "calibrate", "test"] = ""  # part of an experiment; "": not said
    design: Design | None = None  # factors and levels, in place of lists
    # seconds of silence put between the halves of a recorded run, while none of its connections lasts
    pause_s: Any = 0
    limit_s: float = Field(300, gt=0, le=7200)  # most seconds that a run may take; a longer one has failed


class Corpus(Model):
    """A named collection of runs."""

    name: Name
    about: str
    seed: int = 1
    vantage: tuple[Literal["client", "server"], ...] = ("client",)
    runs: tuple[Entry, ...] = Field(min_length=1)


class Run(Model):
    """One run with every choice made: fresh hosts, a server, users who repeat an activity."""

    id: str
    number: int = Field(ge=0, le=65_535)  # number of the run, and of its address block 10.x.y.0/24
    seed: int
    scenario: Name
    server: Name
    client: Name
    activity: Name
    link: Link
    load: Load
    parameters: Parameters
    samples: int
    users: int
    background: tuple[Background, ...]
    group: str
    part: Literal["", "train", "calibrate", "test"] = ""
    pair: str  # name shared by twins; "": no twins
    twin: str  # letter of the twin: a, b …; "": no twins
    pause_s: float = Field(0, ge=0, le=604_800)
    limit_s: float
    vantage: tuple[Literal["client", "server"], ...]
    # SHA-256 of each delivery trace that its links name: the content of a trace is part of the run
    trace_digests: dict[str, str] = Field({}, validate_default=True)

    @field_validator("trace_digests")
    @classmethod
    def _digests(cls, given: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if not {"link", "background"} <= info.data.keys():  # they are wrong themselves
            return given
        links = [info.data["link"], *(other.link for other in info.data["background"])]
        found = {
            x.delivery_trace: trace.read(Path(x.delivery_trace)).digest for x in links if x.delivery_trace
        }
        if given and given != found:
            changed = [path for path in found if found[path] != given.get(path)]
            raise ValueError(f"{', '.join(changed)}: changed since the run was planned")
        return found
