"""Weights of the vision tower and projector that stay resident beside a multimodal decoder."""

from __future__ import annotations

from planner.ingest.hf_config import Config


def vision_parameters(outer: Config) -> int:
    """Return the weights of the vision part, to a few per cent; 0 for text-only models."""
    c = outer.section("vision_config")
    if c is None:
        return 0
    width = c.whole("hidden_size", "vt_hidden_size", "mm_hidden_size")
    depth = c.whole("depth", "num_hidden_layers", "vt_num_hidden_layers")
    inner = c.whole("intermediate_size", "vt_intermediate_size")
    if not width or not depth or not inner:
        return 0
    queries = c.whole("qkv_hidden_size") or width
    # Gemma 4 gates the feed-forward of its tower; all others have two matrices
    matrices = 3 if c.text("model_type").startswith("gemma4") else 2
    blocks = depth * (4 * width * queries + matrices * width * inner + 9 * width + inner)
    return blocks + _patches(c, width) + _projector(outer, c, width)


def _patches(c: Config, width: int) -> int:
    """Return the weights that turn pixels into tokens, with the position table."""
    channels = c.count("in_channels", "num_channels", default=3)
    frames = c.count("temporal_patch_size", default=1)
    size = c.count("patch_size", default=14)
    rows = c.whole("num_position_embeddings")
    if rows is None:
        # Gemma 4: one table per axis; Kimi: a grid
        rows = 2 * (c.whole("position_embedding_size") or 0) or (
            (c.whole("init_pos_emb_height") or 0) * (c.whole("init_pos_emb_width") or 0)
        )
    return width * (channels * frames * size * size + 1 + rows)


def _projector(outer: Config, c: Config, width: int) -> int:
    """Return the weights of the mergers, from merged patches to the decoder's width."""
    text = outer.section("text_config")
    out = c.whole("out_hidden_size", "text_hidden_size") or (text and text.whole("hidden_size"))
    if not out:
        return 0
    if outer.text("model_type").startswith("gemma"):
        return width * out
    merge = c.count("spatial_merge_size", default=2) ** 2 * width
    deep = c.data.get("deepstack_visual_indexes")
    mergers = 1 + (len(deep) if isinstance(deep, list) else 0)
    return mergers * (merge * merge + merge + merge * out + out + 2 * merge)
