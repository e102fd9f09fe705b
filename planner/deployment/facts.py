"""What a deployment is made of: the facts of a plan, and what only its owner can say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from planner.errors import InputError
from planner.formulas.routing import Route
from planner.spec.layout import Layout

TARGETS = ("vllm", "sglang", "trtllm", "kubernetes", "llm-d", "dynamo", "kserve")
#: Port clients use, and the first port of the replicas of a server.
PORT, FIRST_PORT = 8000, 8100


@dataclass(frozen=True, slots=True)
class Pool:
    """Equal replicas in one role, as an engine is told about them.

    Attributes
    ----------
    name
        Unique in the deployment: ``serve``, ``prefill``, ``decode-2``.
    node_devices
        Devices per server.
    max_sequences, token_budget
        Of one attention rank.
    memory_fraction
        Of the whole device, for weights, activations and KV together.
    static_fraction
        Of the whole device, for weights and KV.
    free_fraction
        Of what weights and activations leave free, for KV.
    kv_capacity_tokens
        KV that one attention rank holds [tok].
    quantize
        Quantisation an engine does while it loads a checkpoint in another format; else empty.
    """

    name: str
    role: str
    replicas: int
    traffic_share: float
    layout: Layout
    accelerator: str
    vendor: str
    node_devices: int
    precision: str
    kv_fp8: bool
    max_sequences: int
    token_budget: int
    graph_max_batch: int
    memory_fraction: float
    static_fraction: float
    free_fraction: float
    kv_capacity_tokens: int
    quantize: str

    @property
    def devices(self) -> int:
        """Devices of one replica."""
        return self.layout.devices

    @property
    def nodes(self) -> int:
        """Servers that one replica spans."""
        return max(1, -(-self.devices // self.node_devices))

    @property
    def devices_per_node(self) -> int:
        """Devices of one replica on each of its servers."""
        return self.devices // self.nodes


@dataclass(frozen=True, slots=True)
class Settings:
    """What a plan does not determine; every field has a default that can be overridden."""

    model_path: str
    served_name: str
    image: str
    router_image: str
    namespace: str
    name: str
    secret: str
    max_model_len: int
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Deployment:
    """A plan as files: ``files`` maps paths in the folder to texts."""

    plan: str
    target: str
    files: dict[str, str]
    settings: Settings


@dataclass(frozen=True, slots=True)
class Expected:
    """The operating point that the plan predicts, for the README and the load test.

    ``latencies`` are rows of metric name, mean, p50, p90, p99 [s]; ``slo`` rows of metric,
    statistic, limit [s], class and predicted value [s].
    """

    rate_per_s: float
    goodput_per_s: float
    output_tokens_per_s: float
    latencies: tuple[tuple[str, float, float, float, float], ...]
    slo: tuple[tuple[str, str, float, str, float], ...]
    prompt_tokens: float
    output_tokens: float
    longest_tokens: float
    arrival_cv: float
    error_median: float
    error_p90: float
    basis: str


@dataclass(frozen=True, slots=True)
class Facts:
    """One plan of a document, ready to be written for a target."""

    target: str
    plan: str
    plan_path: str
    model: str
    engine: str
    engine_profile: str
    mode: str
    pools: tuple[Pool, ...]
    settings: Settings
    expected: Expected
    version: str
    route: Route | None = None
    """How the plan was asked to share requests among replicas; ``None``: as suits the target."""

    @property
    def split(self) -> bool:
        """Whether prompts and decode run in pools of their own."""
        return self.mode == "disaggregated"

    @property
    def replicas(self) -> int:
        """Replicas of all pools."""
        return sum(p.replicas for p in self.pools)

    @property
    def routed(self) -> bool:
        """Whether requests need a router in front of the replicas."""
        return self.split or self.replicas > 1

    @property
    def client_port(self) -> int:
        """Port clients use: the router's, or that of the only replica on a plain server."""
        plain = self.target in ("vllm", "sglang", "trtllm")
        return FIRST_PORT if plain and not self.routed else PORT

    def of(self, *roles: str) -> tuple[Pool, ...]:
        """Return the pools with one of the roles."""
        return tuple(p for p in self.pools if p.role in roles)


@dataclass(frozen=True, slots=True)
class Place:
    """Where one part of a replica runs: the ``rank``-th of its servers, and its ports."""

    pool: Pool
    replica: int
    rank: int
    host: str
    leader: str
    first_device: int
    slot: int

    @property
    def port(self) -> int:
        """Port of its HTTP server."""
        return FIRST_PORT + self.slot

    @property
    def side_port(self) -> int:
        """First port of its KV side channel: one per attention rank."""
        return 5600 + 16 * self.slot

    @property
    def bootstrap_port(self) -> int:
        """Port where an SGLang prefill server meets its decode servers."""
        return 8900 + self.slot

    @property
    def group_port(self) -> int:
        """Port where the servers of a replica meet."""
        return 29500 + 16 * self.slot


@dataclass(frozen=True, slots=True)
class _Server:
    """A server that is being filled: devices and ports taken so far."""

    accelerator: str
    taken: int
    slots: int


class Placeable(Protocol):
    """What placing equal replicas on servers needs to know of them."""

    @property
    def accelerator(self) -> str:
        """Device type."""

    @property
    def replicas(self) -> int:
        """Equal replicas."""

    @property
    def node_devices(self) -> int:
        """Devices per server."""

    @property
    def nodes(self) -> int:
        """Servers that one replica spans."""

    @property
    def devices_per_node(self) -> int:
        """Devices of one replica on each of its servers."""


_Placed = TypeVar("_Placed", bound=Placeable)


def placed(pools: Sequence[_Placed]) -> tuple[tuple[int, _Placed, int, int, int, int], ...]:
    """Return rows of server, pool, replica, rank, first device, slot: first fit, in order.

    A replica that spans servers takes whole ones; the others share servers of their device type.
    """
    servers: list[_Server] = []
    rows = []
    for pool in pools:
        need = pool.devices_per_node
        k = 0 if pool.nodes == 1 else len(servers)
        for replica in range(pool.replicas):
            for rank in range(pool.nodes):
                # a server without room for one replica of the pool has none for its next
                while k < len(servers) and not _has_room(servers[k], pool):
                    k += 1
                if k == len(servers):
                    servers.append(_Server(pool.accelerator, 0, 0))
                at = servers[k]
                rows.append((k, pool, replica, rank, at.taken, at.slots))
                servers[k] = _Server(at.accelerator, at.taken + need, at.slots + 1)
                k += pool.nodes > 1
    return tuple(rows)


def _has_room(server: _Server, pool: Placeable) -> bool:
    free = pool.node_devices - server.taken
    return server.accelerator == pool.accelerator and pool.devices_per_node <= free


def places(facts: Facts) -> tuple[Place, ...]:
    """Return where every part of every replica runs, on the hosts of the settings.

    Raises
    ------
    InputError
        If the number of hosts given is not the number of servers needed.
    """
    rows = placed(facts.pools)
    count = 1 + max(row[0] for row in rows)
    hosts = facts.settings.hosts
    if not hosts:
        hosts = ("127.0.0.1",) if count == 1 else tuple(f"node-{k}" for k in range(count))
    if len(hosts) != count:
        raise InputError(
            f"--hosts: found {len(hosts)} names, expected {count}: plan {facts.plan} fills "
            f"{count} {'server' if count == 1 else 'servers'}"
        )
    return tuple(_places(rows, hosts))


def _places(
    rows: tuple[tuple[int, Pool, int, int, int, int], ...], hosts: tuple[str, ...]
) -> Iterator[Place]:
    leader = ""
    for k, pool, replica, rank, device, slot in rows:
        leader = hosts[k] if rank == 0 else leader
        yield Place(pool, replica, rank, hosts[k], leader, device, slot)
