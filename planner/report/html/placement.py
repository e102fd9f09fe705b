"""Where replicas stand: servers with their devices, as ``planner deploy`` fills them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planner.deployment.facts import placed
from planner.spec.layout import Layout

#: Most servers drawn; the others are counted.
MOST_NODES = 24


@dataclass(frozen=True, slots=True)
class Block:
    """Equal replicas on servers."""

    number: int
    role: str
    accelerator: str
    replicas: int
    layout: Layout
    node_devices: int

    @property
    def nodes(self) -> int:
        """Servers that one replica spans."""
        return max(1, -(-self.layout.devices // self.node_devices))

    @property
    def devices_per_node(self) -> int:
        """Devices of one replica on each of its servers; the last may hold fewer."""
        return -(-self.layout.devices // self.nodes)


@dataclass(frozen=True, slots=True)
class Device:
    """One device: the pool's number from 0 and role, its replica from 1, its ranks; or free."""

    pool: int
    role: str
    replica: int
    ranks: str


FREE = Device(-1, "free", 0, "")


@dataclass(frozen=True, slots=True)
class Node:
    """One server."""

    name: str
    accelerator: str
    devices: tuple[Device, ...]

    @property
    def text(self) -> str:
        """What stands where, in words."""
        runs: dict[tuple[str, int], list[int]] = {}
        for k, device in enumerate(self.devices):
            runs.setdefault((device.role, device.replica), []).append(k)
        parts = []
        for (role, replica), at in runs.items():
            where = f"GPU {at[0]}" if len(at) == 1 else f"GPUs {at[0]} to {at[-1]}"
            what = "free" if role == "free" else f"{_WORDS[role]} replica {replica}"
            parts.append(f"{what} on {where}")
        return f"{self.name}, {self.accelerator}: {'; '.join(parts)}"


_WORDS = {"both": "colocated", "prefill": "prefill", "decode": "decode"}


def nodes_of(
    plan: Mapping[str, Any], inventory: Sequence[Mapping[str, Any]]
) -> tuple[tuple[Node, ...], int]:
    """Return the first servers a plan fills, in the order of its pools, and how many follow."""
    per_node = {row["accelerator"]: row["gpus_per_node"] for row in inventory}
    blocks = [
        Block(
            k, p["role"], p["accelerator"], p["replicas"], Layout(**p["layout"]),
            per_node.get(p["accelerator"], 8),
        )
        for k, p in enumerate(plan["pools"])
    ]  # fmt: skip
    first = {b.number: sum(x.replicas for x in blocks if x.role == b.role and x.number < b.number)
             for b in blocks}  # fmt: skip
    rows: dict[int, list[Device]] = {}
    kinds: dict[int, Block] = {}
    last = 0
    for server, block, replica, rank, _, _ in placed(blocks):
        last = max(last, server)
        if server >= MOST_NODES:
            continue
        start = rank * block.devices_per_node
        stop = min(start + block.devices_per_node, block.layout.devices)
        kinds[server] = block
        rows.setdefault(server, []).extend(
            Device(block.number, block.role, first[block.number] + replica + 1, _ranks(block, k))
            for k in range(start, stop)
        )
    drawn = tuple(
        Node(
            f"Server {server + 1}",
            kinds[server].accelerator,
            (*devices, *(FREE,) * (kinds[server].node_devices - len(devices))),
        )
        for server, devices in sorted(rows.items())
    )
    return drawn, last + 1 - len(drawn)


def _ranks(block: Block, k: int) -> str:
    """Return the ranks of the k-th device of a replica: tensor ranks vary fastest, then stages."""
    layout = block.layout
    parts = [f"t{k % layout.tp}"] if layout.tp > 1 or layout.devices == 1 else []
    if layout.pp > 1:
        parts.append(f"p{k // layout.tp % layout.pp}")
    if layout.dp > 1:
        parts.append(f"d{k // (layout.tp * layout.pp)}")
    return " ".join(parts)
