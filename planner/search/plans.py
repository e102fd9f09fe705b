"""Plans as typed objects: pools of replicas, their metrics and what binds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from planner.cost.breakdown import Line
from planner.serving.evaluate import Memory
from planner.serving.latency import Statistics
from planner.spec.layout import Layout
from planner.spec.limits import UNBOUNDED, Limits
from planner.spec.slo import Bound

#: Where a plan's distributions are tabulated [-].
SHARES = (0.01, 0.02, *(k / 20 for k in range(1, 20)), 0.98, 0.99)


@dataclass(frozen=True, slots=True)
class Pool:
    """Equal replicas in one role.

    Attributes
    ----------
    role
        ``both`` (prompts and decode in one replica), ``prefill`` or ``decode``.
    engine, scheduler
        Profile, and its scheduler as ``--scheduler`` reads it.
    traffic_share
        Share of the plan's requests that pass through the pool.
    goodput_per_s
        Largest rate the whole pool serves within the SLOs.
    batch_mean, utilization, kv_use
        Requests in decode per replica, share of time busy, share of the KV pool held.
    decode_step_s, doubled_step_s
        A step that only decodes, at the mean batch and at twice that; ``None`` for prefill pools,
        the second also where a replica has no room for twice the batch.
    """

    role: str
    accelerator: str
    layout: Layout
    precision: str
    kv_bytes_per_element: float
    engine: str
    scheduler: str
    replicas: int
    gpus: int
    usd_per_hour: float | None
    traffic_share: float
    goodput_per_s: float
    batch_mean: float
    utilization: float
    kv_use: float
    kv_capacity_tokens: float
    max_sequences: int
    token_budget: int
    decode_step_s: float | None
    doubled_step_s: float | None
    power_w: float
    peak_flops_per_s: float
    memory_bandwidth_bytes_per_s: float
    memory: Memory
    breakdown: tuple[Line, ...]
    bottleneck: str
    region: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """A deployment with its predicted behaviour at ``rate_per_s``.

    ``quantiles_s`` holds, per metric (``ttft``, ``tpot``), its quantiles at ``SHARES`` [s];
    ``knee`` marks, of the plans listed with it, the one nearest to the best of each objective.
    """

    id: str
    recommended: bool
    knee: bool
    meets_slo: bool
    mode: str
    pools: tuple[Pool, ...]
    gpus: int
    usd_per_hour: float | None
    usd_per_million_output_tokens: float | None
    rate_per_s: float
    goodput_per_s: float
    ttft_s: Statistics
    tpot_s: Statistics
    itl_s: Statistics
    e2e_s: Statistics
    quantiles_s: dict[str, tuple[float, ...]]
    slo: tuple[SloResult, ...]
    output_tokens_per_s: float
    power_w: float
    energy_j_per_output_token: float
    kv_use: float
    bottleneck: str
    saturation_per_s: float
    """Rate at which the first pool stops being stable, whatever the SLOs."""
    routing: tuple[Route, ...] = ()
    """Which sizes go to which pools; empty where all pools serve all sizes alike."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where requests of more than ``…_from`` and at most ``…_to`` tokens go.

    ``share`` is their part of all requests, ``to_pools`` the share of them that each of the plan's
    pools takes: those that take prompts sum to 1, and decode pools to what prefill pools take.
    """

    prompt_from: float
    prompt_to: float
    output_from: float
    output_to: float
    share: float
    to_pools: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SloResult:
    """One bound, the predicted value of its statistic, and the share of requests within it."""

    bound: Bound
    of: str
    value_s: float
    share: float
    met: bool


@dataclass(frozen=True, slots=True)
class Price:
    """What relief from a constraint is worth, in the unit of the first objective.

    Attributes
    ----------
    constraint, step
        Accelerator name, ``ttft``, ``tpot``, ``e2e``, ``rate`` or ``quality``; the step of relief.
    gain
        How much one step improves the exact optimum.
    least_steps, least_gain
        Fewest of 1, 2, 4, 8 steps that improve it, and by how much; ``None`` and 0 if none does.
    """

    constraint: str
    step: str
    gain: float
    least_steps: int | None
    least_gain: float
    unit: str


@dataclass(frozen=True, slots=True)
class Point:
    """An exact optimum of a trade-off: the value of each objective, and the plan."""

    values: dict[str, float]
    knee: bool
    plan: Plan


@dataclass(frozen=True, slots=True)
class TradeOff:
    """The non-dominated points over some objectives, in order of the first."""

    objectives: tuple[str, ...]
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class PlanSet:
    """The answer of a search.

    ``plans`` is the Pareto set over (cost, TTFT, TPOT at the SLO's statistic, goodput) of the plan
    space that was searched, the recommended plan first. ``techniques`` are those applied;
    ``savings`` says what each that the search took saves, in units of the objective (costs: $/h).
    """

    plans: tuple[Plan, ...]
    objective: str
    binding: str
    enumerated: dict[str, int]
    considered: int
    pareto_size: int
    optimality: str
    relative_error: dict[str, float]
    basis: str
    gap: float = 0.0
    """How far the recommended plan's objective may be from the bound, as a share of it."""
    bound_basis: Literal["exact", "additive"] = "exact"
    """``exact``: no mix of pools goes below the bound. ``additive``: also pools by size were
    sought, and the bound holds for them as far as loads of sizes add up."""
    limits: Limits = UNBOUNDED
    assumptions: tuple[str, ...] = field(default=())
    prices: tuple[Price, ...] = ()
    """What relief from each constraint is worth, where asked for."""
    tradeoff: TradeOff | None = None
    """The exact trade-off over chosen objectives, where asked for."""
    techniques: str = ""
    beside_usd_per_hour: float = 0.0
    """What techniques rent beside the devices: part of every plan's price, of no pool's."""
    savings: dict[str, float] = field(default_factory=dict)

    @property
    def knee(self) -> Plan:
        """The plan nearest to the best cost, TTFT, TPOT and goodput at once, of those listed."""
        return next(p for p in self.plans if p.knee)

    @property
    def recommended(self) -> Plan:
        """The recommended plan."""
        return next(p for p in self.plans if p.recommended)
