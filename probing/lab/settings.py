"""What a lab file may say: links, load, activities, scenarios and corpora, checked before anything is made."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from probing.lab.errors import LabError

Percent = Annotated[float, Field(ge=0, le=100)]
Range = Annotated[str, Field(pattern=r"^\d{1,9}-\d{1,9}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")]

DISTRIBUTIONS = ("uniform", "normal", "pareto", "paretonormal")
TERMINATIONS = ("fin", "rst", "sudden", "timeout", "refused", "none")
MAX_USERS, MAX_SERVERS, MAX_CLIENTS = 64, 9, 240  # hosts of a run; addresses .1 to .9 and .10 to .249
LEAST_QUOTA = 0.2  # percent: the kernel gives no less than 1 ms, and no period longer than a second


class Model(BaseModel):
    """Strict: a key that nobody knows is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Link(Model):
    """One client's access to the network, both directions alike; the values of tc-netem(8)."""

    delay_ms: float = Field(0, ge=0, le=10_000)  # of one direction: a round trip takes twice as long
    jitter_ms: float = Field(0, ge=0, le=10_000)  # standard deviation (uniform: half width) of the delay
    distribution: Literal["uniform", "normal", "pareto", "paretonormal"] = "normal"
    loss_pct: Percent = 0
    reorder_pct: Percent = 0  # packets that do not wait for the delay and so overtake others
    duplicate_pct: Percent = 0
    corrupt_pct: Percent = 0  # packets with one bit turned over
    rate_kbit: float = Field(0, ge=0, le=10_000_000)  # 0: no limit
    queue_packets: int = Field(1000, ge=1, le=10_000)  # that may wait for the rate
    impaired: Literal["both", "server", "client"] = (
        "both"  # towards whom packets suffer; delay, rate: always both
    )
    keep_order: bool = False  # jitter delays a packet's successors rather than letting them overtake

    @model_validator(mode="after")
    def _possible(self) -> Link:
        if self.reorder_pct and not self.delay_ms:
            raise ValueError("reorder_pct needs delay_ms: a packet overtakes those that are delayed")
        return self


class Load(Model):
    """What keeps the server's processors busy."""

    quota_pct: float = Field(0, ge=0, le=100)  # share of one processor that the server may use, 0: no limit
    hogs: int = Field(0, ge=0, le=64)  # busy loops that compete with it for its processor

    @model_validator(mode="after")
    def _possible(self) -> Load:
        if 0 < self.quota_pct < LEAST_QUOTA:
            raise ValueError(f"quota_pct {self.quota_pct:g}: 0 (no limit) or at least {LEAST_QUOTA:g}")
        return self

    @property
    def name(self) -> str:
        """Its label: none, quota-5, hogs-3 or quota-5-hogs-3."""
        parts = [f"quota-{self.quota_pct:g}"] if self.quota_pct else []
        parts += [f"hogs-{self.hogs}"] if self.hogs else []
        return "-".join(parts) or "none"


class Parameters(Model):
    """Knobs of activities; each activity's description says which it turns."""

    content_bytes: int | Range = "200-20000"  # of a transfer; a range: drawn log-uniformly
    content_kind: Literal["text", "binary"] = "text"  # text compresses, binary does not
    requests: int = Field(4, ge=1, le=10_000)  # in one connection
    pause_ms: float = Field(0, ge=0, le=60_000)  # between requests, commands or messages
    cache: Literal["cold", "warm"] = "cold"  # warm: the client has been here before (validators, known hosts)
    termination: Literal["fin", "rst", "sudden", "timeout"] = "fin"
    hosts: int = Field(2, ge=2, le=4)  # that synchronise
    guesses: int = Field(8, ge=1, le=1000)  # of passwords
    ports: int = Field(100, ge=1, le=65_535)  # that a scan asks

    @model_validator(mode="after")
    def _possible(self) -> Parameters:
        low, high = self.size_range
        if not 0 <= low <= high <= 100_000_000:
            raise ValueError(f"content_bytes {self.content_bytes}: from 0 to 100000000, the smaller first")
        return self

    @property
    def size_range(self) -> tuple[int, int]:
        """Least and most bytes of a transfer."""
        if isinstance(self.content_bytes, int):
            return self.content_bytes, self.content_bytes
        low, high = self.content_bytes.split("-")
        return int(low), int(high)


class Activity(Model):
    """One thing that clients of a scenario do."""

    about: str
    clients: tuple[Name, ...] = ()  # implementations that can do it; none: all of the scenario
    servers: tuple[Name, ...] = ()
    attack: bool = False
    attack_kind: str = "none"
    phases: tuple[str, ...] = ()  # marks that its connections carry
    terminations: tuple[str, ...] = ("fin",)  # ways in which its connections can end
    parameters: dict[str, Any] = {}  # defaults that differ from Parameters'


class Scenario(Model):
    """A server, its clients and what they do."""

    name: Name
    task: Name
    about: str
    servers: tuple[Name, ...]
    clients: tuple[Name, ...]
    activities: dict[Name, Activity]
    parameters: dict[str, Any] = {}
    pairs: dict[Name, tuple[Name, ...]] = {}  # client -> servers it can talk to; none named: all
    several_hosts: bool = False  # a user is not one host but parameters.hosts - 1 of them

    @model_validator(mode="after")
    def _consistent(self) -> Scenario:
        for client, servers in self.pairs.items():
            if client not in self.clients or not set(servers) <= set(self.servers):
                raise ValueError(
                    f"pairs: {client}: {', '.join(servers)}: a client or server that is none here"
                )
        for name, activity in self.activities.items():
            for client in activity.clients:
                if client not in self.clients:
                    raise ValueError(f"activity {name}: client {client} is none of {', '.join(self.clients)}")
            for server in activity.servers:
                if server not in self.servers:
                    raise ValueError(f"activity {name}: server {server} is none of {', '.join(self.servers)}")
            for way in activity.terminations:
                if way not in TERMINATIONS:
                    raise ValueError(
                        f"activity {name}: termination {way} is none of {', '.join(TERMINATIONS)}"
                    )
            Parameters(**(self.parameters | activity.parameters))
        return self

    def clients_of(self, activity: str) -> tuple[str, ...]:
        """Implementations that can do an activity."""
        return self.activities[activity].clients or self.clients

    def check_ending(self, activity: str, given: dict[str, Any], where: str) -> None:
        """Raise LabError when a termination is wanted that an activity does not have."""
        wanted = given.get("termination", [])
        for way in wanted if isinstance(wanted, list) else [wanted]:
            if way not in self.activities[activity].terminations:
                ways = ", ".join(self.activities[activity].terminations)
                raise LabError(f"{where}: parameters.termination {way}: {activity} ends by {ways}")

    def fits(self, client: str, server: str) -> bool:
        """Whether a client can talk to a server."""
        return server in self.pairs.get(client, self.servers)

    def servers_of(self, activity: str) -> tuple[str, ...]:
        """Implementations that can serve an activity."""
        return self.activities[activity].servers or self.servers


class Background(Model):
    """What other users do at the same time, over and over until the run is over."""

    scenario: Name
    server: Name
    client: Name
    activity: Name
    users: int = Field(1, ge=1, le=MAX_USERS)
    pause_ms: float = Field(200, ge=0, le=600_000)  # mean of an exponential law
    link: Link = Link()
    parameters: dict[str, Any] = {}


class Entry(Model):
    """Runs of a corpus. A list where one value is expected makes a run of each; ``all``: all that fit."""

    scenario: Name
    server: Any = "all"
    client: Any = "all"
    activity: Any = "all"
    link: dict[str, Any] = {}
    load: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    samples: int = Field(1, ge=1, le=100_000)  # times the activity is done, in a run
    users: int = Field(1, ge=1, le=MAX_USERS)  # hosts that share the samples, working at the same time
    copies: int = Field(1, ge=1, le=10_000)  # runs of each setting, with seeds of their own
    twins: tuple[
        dict[str, Any], ...
    ] = ()  # link settings; each sample is done once under each, all else equal
    background: tuple[Background, ...] = ()
    group: str = ""  # a name for the setting in analyses
    limit_s: float = Field(300, gt=0, le=7200)  # a run that takes longer has failed


class Corpus(Model):
    """A named collection of runs."""

    name: Name
    about: str
    seed: int = 1
    vantage: tuple[Literal["client", "server"], ...] = ("client",)
    runs: tuple[Entry, ...] = Field(min_length=1)


class Run(Model):
    """One run, every choice made: fresh hosts, a server, users who do an activity so many times."""

    id: str
    number: int = Field(ge=0, le=65_535)  # its address block: 10.x.y.0/24
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
    pair: str  # equal in twins, "" without
    twin: str  # a, b …; "" without
    limit_s: float
    vantage: tuple[Literal["client", "server"], ...]
