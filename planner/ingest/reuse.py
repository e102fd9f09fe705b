"""What prefix caches find in a trace, by their size: LRU over the blocks of its prompts."""

from __future__ import annotations

from collections import OrderedDict

#: Sizes that a curve is held at [blocks]; the last row is that of an endless cache.
SIZES = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)


def found_share(block_ids: tuple[tuple[int, ...], ...], blocks: int) -> float:
    """Return the share of prompt blocks that an LRU cache holds when their request arrives.

    Parameters
    ----------
    block_ids
        Blocks of each prompt in order of arrival; a block's id stands for all before it too.
    blocks
        Blocks the cache holds.

    Notes
    -----
    A prompt's blocks count until the first that is not held, as KV needs everything before it.
    Later blocks of a prompt are the older ones, so that a prefix outlives what follows it.
    """
    held: OrderedDict[int, None] = OrderedDict()
    found = total = 0
    for ids in block_ids:
        total += len(ids)
        for block in ids:
            if block not in held:
                break
            found += 1
        for block in reversed(ids):
            held[block] = None
            held.move_to_end(block)
        while len(held) > blocks:
            held.popitem(last=False)
    return found / total if total else 0.0


def reuse_curve(
    block_ids: tuple[tuple[int, ...], ...], block_tokens: int
) -> tuple[tuple[float, float], ...]:
    """Return rows of (tokens a cache holds, share of prompt blocks found), by rising size."""
    different = len({block for ids in block_ids for block in ids})
    sizes = [*(s for s in SIZES if s < different), max(different, 1)]
    shares = [round(found_share(block_ids, s), 4) for s in sizes]
    rows = [(float(s * block_tokens), share) for s, share in zip(sizes, shares, strict=True)]
    return tuple(rows) if shares[-1] > 0.0 else ()
