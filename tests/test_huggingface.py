"""Import of config.json files: architectures, precisions and bad input."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from planner.catalog.yaml import parse, validate
from planner.errors import CatalogError, InputError
from planner.ingest.huggingface import model_from_config, model_to_yaml, read_model
from planner.spec.model import Dense, Gqa, Linear, Mla, Model, Moe, NoAttention, Ssm

#: Real configs lie beside the checkout, they are no part of it.
CONFIGS = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "hf_configs"

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64,
    "num_key_value_heads": 8, "intermediate_size": 28672, "vocab_size": 128256,
    "max_position_embeddings": 131072,
}
DEEPSEEK: dict[str, Any] = {
    "model_type": "deepseek_v3", "hidden_size": 7168, "num_hidden_layers": 61,
    "num_attention_heads": 128, "num_key_value_heads": 128, "head_dim": 64, "q_lora_rank": 1536,
    "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "intermediate_size": 18432, "moe_intermediate_size": 2048, "n_routed_experts": 256,
    "n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 3,
    "moe_layer_freq": 1, "topk_method": "noaux_tc", "num_nextn_predict_layers": 1,
    "vocab_size": 129280, "max_position_embeddings": 163840,
}
SMALL: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 128, "vocab_size": 100, "max_position_embeddings": 512,
}

GLM4: dict[str, Any] = {
    "hidden_size": 4096, "num_hidden_layers": 40, "num_attention_heads": 32,
    "num_key_value_heads": 2, "head_dim": 128, "intermediate_size": 13696, "vocab_size": 151552,
    "max_position_embeddings": 131072, "attention_bias": True,
}


def imported(config: dict[str, Any], name: str = "tiny") -> Model:
    model = model_from_config(config, name, source="a test")
    assert model.published_parameters_count is None  # what is counted is not what was published
    assert validate(parse(model_to_yaml(model), "x.yaml"), Model) == model
    return model


def test_llama():
    model = imported(LLAMA)
    assert model.parameters_count == 70_553_706_496
    assert [g.count for g in model.layers] == [80]
    assert model.layers[0].attention == Gqa(heads=64, kv_heads=8, head_dim=128)
    assert model.native_precision == "bf16"


def test_missing_key_value_heads_mean_multi_head():
    config = {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}
    attention = imported(config).layers[0].attention
    assert isinstance(attention, Gqa)
    assert attention.kv_heads == 64


def test_mixtral():
    model = imported({"model_type": "mixtral", "hidden_size": 4096, "num_hidden_layers": 32,
                      "num_attention_heads": 32, "num_key_value_heads": 8,
                      "intermediate_size": 14336, "num_local_experts": 8, "num_experts_per_tok": 2,
                      "vocab_size": 32000, "max_position_embeddings": 32768,
                      "sliding_window": None})
    assert model.parameters_count == 46_702_792_704
    assert model.active_count == pytest.approx(12.9e9, rel=0.02)
    assert model.layers[0].ffn == Moe(experts=8, top_k=2, intermediate=14336, skew=1.2)


def test_deepseek_v3():
    model = imported(DEEPSEEK | {"quantization_config": {"quant_method": "fp8",
                                                         "weight_block_size": [128, 128]}})
    assert model.parameters_count == 671_026_419_200
    assert [(g.count, g.ffn.kind) for g in model.layers] == [(3, "dense"), (58, "moe")]
    latent = model.layers[0].attention
    assert isinstance(latent, Mla)
    assert latent.kv_width == 576, "never from num_key_value_heads and head_dim"
    assert model.native_precision == "fp8-block"


def test_sparse_attention_and_shared_indexers():
    index = {"index_topk": 2048, "index_n_heads": 64, "index_head_dim": 128}
    dense = imported(DEEPSEEK).parameters_count
    sparse = imported(DEEPSEEK | index | {"model_type": "deepseek_v32"}).parameters_count
    assert sparse - dense == 61 * (64 * 128 * 1536 + 7168 * 64 + 7168 * 128 + 2 * 128)
    kinds = ["full"] * 3 + ["shared"] * 58 + ["full"]  # one entry more: the MTP layer
    shared = imported(DEEPSEEK | index | {"model_type": "glm_moe_dsa", "indexer_types": kinds})
    widths = {(g.count, g.attention.kv_width, g.attention.index_topk) for g in shared.layers
              if isinstance(g.attention, Mla)}
    assert widths == {(3, 704, 2048), (58, 576, 2048)}


def test_deepseek_v4_states_its_approximations():
    config = DEEPSEEK | {"model_type": "deepseek_v4", "num_hidden_layers": 3, "head_dim": 512,
                         "index_topk": 512, "index_n_heads": 64, "index_head_dim": 128,
                         "sliding_window": 128, "o_lora_rank": 1024, "o_groups": 8,
                         "compress_ratios": [0, 4, 128, 0], "expert_dtype": "fp4",
                         "first_k_dense_replace": None}
    model = imported(config)
    assert [g.attention.kv_width for g in model.layers if isinstance(g.attention, Mla)] == [
        0, 160, 4]
    assert "compress_ratios [0, 4, 128]" in model.notes
    assert model.native_precision == "mxfp4"
    with pytest.raises(CatalogError, match=r"compress_ratios: found nothing, expected one ratio"):
        imported({k: v for k, v in config.items() if k != "compress_ratios"})


def test_nested_text_config_and_int4():
    quantised = {"quant_method": "compressed-tensors", "format": "pack-quantized",
                 "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}}}
    config = {"model_type": "kimi_k25", "text_config": DEEPSEEK | {"model_type": "kimi_k2",
              "quantization_config": quantised},
              "vision_config": {"vt_hidden_size": 1152, "vt_intermediate_size": 4304,
                                "vt_num_hidden_layers": 27, "patch_size": 14,
                                "text_hidden_size": 7168}}
    model = imported(config)
    assert model.native_precision == "int4"
    assert model.other_parameters_count == pytest.approx(0.47e9, rel=0.02)


def test_gpt_oss():
    kinds = ["sliding_attention", "full_attention"] * 18
    config = {"model_type": "gpt_oss", "hidden_size": 2880, "num_hidden_layers": 36,
              "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64,
              "attention_bias": True, "intermediate_size": 2880, "num_local_experts": 128,
              "num_experts_per_tok": 4, "sliding_window": 128, "layer_types": kinds,
              "vocab_size": 201088, "max_position_embeddings": 131072,
              "quantization_config": {"quant_method": "mxfp4"}}
    model = imported(config)
    assert model.parameters_count == 116_829_156_672
    assert {(g.count, g.attention.window) for g in model.layers
            if isinstance(g.attention, Gqa)} == {(18, 128), (18, None)}
    assert model.native_precision == "mxfp4"
    assert imported({k: v for k, v in config.items() if k != "layer_types"}).layers == model.layers


def test_qwen_hybrid():
    text = SMALL | {"model_type": "qwen3_5_moe_text", "num_experts": 8, "num_experts_per_tok": 2,
                    "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
                    "linear_num_key_heads": 2, "linear_num_value_heads": 4,
                    "linear_key_head_dim": 16, "linear_value_head_dim": 16,
                    "attn_output_gate": True,
                    "layer_types": ["linear_attention"] * 3 + ["full_attention"]}
    model = imported({"model_type": "qwen3_5_moe", "text_config": text})
    fast, full = model.layers
    assert (fast.count, fast.attention.kind) == (3, "linear")
    assert isinstance(fast.attention, Linear)
    assert fast.attention.state_elements == 4 * 16 * 16 + 3 * (2 * 2 * 16 + 4 * 16)
    assert isinstance(full.attention, Gqa)
    assert full.attention.gated
    assert full.attention.q_width == 2 * 64


def test_nemotron_h():
    config = SMALL | {"model_type": "nemotron_h", "hybrid_override_pattern": "M-M*-E",
                      "mamba_num_heads": 4, "mamba_head_dim": 32, "ssm_state_size": 16,
                      "n_groups": 2, "n_routed_experts": 8, "num_experts_per_tok": 2,
                      "moe_intermediate_size": 32, "moe_latent_size": 16,
                      "moe_shared_expert_intermediate_size": 48}
    model = imported(config)
    kinds = {(g.attention.kind, g.ffn.kind): g for g in model.layers}
    assert {k: g.count for k, g in kinds.items()} == {
        ("ssm", "none"): 2, ("none", "dense"): 2, ("gqa", "none"): 1, ("none", "moe"): 1}
    mixer, experts = kinds["ssm", "none"].attention, kinds["none", "moe"].ffn
    assert isinstance(mixer, Ssm)
    assert mixer.state_elements == 4 * 32 * 16 + 3 * (4 * 32 + 2 * 2 * 16)
    assert isinstance(experts, Moe)
    assert (experts.latent, experts.gated, experts.shared_intermediate) == (16, False, 48)
    blocks = {**config, "layers_block_type": ["mamba", "mlp", "mamba", "attention", "mlp", "moe"]}
    assert imported(blocks).layers == model.layers
    with pytest.raises(CatalogError, match=r"expected one of M, \*, - and E"):
        imported({**config, "hybrid_override_pattern": "MX"})


def test_pruned_blocks():
    block = {"attention": {"n_heads_in_group": 2, "no_op": False},
             "ffn": {"ffn_mult": 3.0, "no_op": False}}
    skipped = {"attention": {"n_heads_in_group": None, "no_op": True}, "ffn": {"ffn_mult": 1.5}}
    config = SMALL | {"model_type": "nemotron-nas", "block_configs": [block] * 3 + [skipped],
                      "num_key_value_heads": None, "intermediate_size": None}
    full, pruned = imported(config).layers
    assert full.ffn == Dense(intermediate=256)
    assert isinstance(pruned.attention, NoAttention)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({"model_type": "opt", "hidden_size": 5120, "num_hidden_layers": 40,
          "num_attention_heads": 40, "ffn_dim": 20480, "vocab_size": 50272,
          "max_position_embeddings": 2048}, 12_853_473_280),
        ({"model_type": "gptj", "n_embd": 4096, "n_layer": 28, "n_head": 16, "n_positions": 2048,
          "vocab_size": 50400}, 6_050_882_784),
        ({"model_type": "falcon", "hidden_size": 14848, "num_hidden_layers": 80,
          "num_attention_heads": 232, "num_kv_heads": 8, "new_decoder_architecture": True,
          "vocab_size": 65024, "tie_word_embeddings": False}, 179_522_565_120),
        ({"model_type": "gpt_neox", "hidden_size": 6144, "num_hidden_layers": 44,
          "num_attention_heads": 64, "intermediate_size": 24576, "vocab_size": 50432,
          "max_position_embeddings": 2048}, 20_554_567_680),
        ({"model_type": "phi", "hidden_size": 2560, "num_hidden_layers": 32,
          "num_attention_heads": 32, "intermediate_size": 10240, "vocab_size": 51200,
          "max_position_embeddings": 2048}, 2_779_683_840),
        ({"model_type": "gemma2", "hidden_size": 4608, "num_hidden_layers": 46,
          "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128,
          "intermediate_size": 36864, "sliding_window": 4096, "vocab_size": 256000,
          "max_position_embeddings": 8192}, 27_227_128_320),
        ({"model_type": "mamba2", "hidden_size": 2560, "num_hidden_layers": 64, "head_dim": 64,
          "num_heads": 80, "state_size": 128, "expand": 2, "n_groups": 1, "vocab_size": 50288},
         2_702_599_680),
        ({"model_type": "gemma", "hidden_size": 2048, "num_hidden_layers": 18,
          "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256,
          "intermediate_size": 16384, "vocab_size": 256000, "max_position_embeddings": 8192},
         2_506_172_416),
        ({"model_type": "starcoder2", "hidden_size": 3072, "num_hidden_layers": 30,
          "num_attention_heads": 24, "num_key_value_heads": 2, "intermediate_size": 12288,
          "vocab_size": 49152, "max_position_embeddings": 16384, "use_bias": True},
         3_030_371_328),
        ({"model_type": "cohere", "hidden_size": 8192, "num_hidden_layers": 40,
          "num_attention_heads": 64, "num_key_value_heads": 64, "intermediate_size": 22528,
          "vocab_size": 256000, "max_position_embeddings": 8192}, 34_980_831_232),
        ({"model_type": "cohere2", "hidden_size": 4096, "num_hidden_layers": 32,
          "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
          "vocab_size": 256000, "sliding_window": 4096, "max_position_embeddings": 132096},
         8_028_033_024),
        (GLM4 | {"model_type": "glm"}, 9_399_951_360),
        (GLM4 | {"model_type": "glm4"}, 9_400_279_040),
        ({"model_type": "chatglm", "hidden_size": 4096, "num_layers": 40, "ffn_hidden_size": 13696,
          "kv_channels": 128, "num_attention_heads": 32, "multi_query_attention": True,
          "multi_query_group_num": 2, "add_qkv_bias": True, "padded_vocab_size": 151552,
          "seq_length": 131072}, 9_399_951_360),
        ({"model_type": "olmo2", "hidden_size": 4096, "num_hidden_layers": 32,
          "num_attention_heads": 32, "intermediate_size": 11008, "vocab_size": 100352,
          "max_position_embeddings": 4096}, 7_298_617_344),
        ({"model_type": "phimoe", "hidden_size": 4096, "num_hidden_layers": 32,
          "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 6400,
          "num_local_experts": 16, "num_experts_per_tok": 2, "attention_bias": True,
          "lm_head_bias": True, "vocab_size": 32064, "max_position_embeddings": 131072},
         41_873_153_344),
        ({"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024,
          "vocab_size": 50257}, 124_439_808),
        ({"model_type": "gpt_bigcode", "n_embd": 6144, "n_layer": 40, "n_head": 48,
          "n_inner": 24576, "n_positions": 8192, "vocab_size": 49152}, 15_517_456_384),
        ({"model_type": "bloom", "n_embed": 4096, "n_layer": 30, "num_attention_heads": 32,
          "vocab_size": 250880, "seq_length": 2048}, 7_069_016_064),
        ({"model_type": "mpt", "d_model": 4096, "n_layers": 32, "n_heads": 32,
          "expansion_ratio": 4, "max_seq_len": 2048, "no_bias": True, "vocab_size": 50432},
         6_649_286_656),
        ({"model_type": "stablelm", "hidden_size": 2048, "num_hidden_layers": 24,
          "num_attention_heads": 32, "num_key_value_heads": 32, "intermediate_size": 5632,
          "use_qkv_bias": True, "vocab_size": 100352, "max_position_embeddings": 4096},
         1_644_515_328),
        ({"model_type": "mamba", "hidden_size": 2560, "num_hidden_layers": 64, "state_size": 16,
          "expand": 2, "conv_kernel": 4, "time_step_rank": 160, "vocab_size": 50280},
         2_768_345_600),
        ({"model_type": "falcon_mamba", "hidden_size": 4096, "num_hidden_layers": 64,
          "state_size": 16, "intermediate_size": 8192, "conv_kernel": 4, "time_step_rank": 256,
          "vocab_size": 65024}, 7_272_665_088),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)
def test_older_families_to_the_last_weight(config: dict[str, Any], count: int):
    assert imported(config).parameters_count == count


def test_minimax_text_01():
    config = {"model_type": "minimax_text_01", "hidden_size": 6144, "num_hidden_layers": 80,
              "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128,
              "intermediate_size": 9216, "num_local_experts": 32, "num_experts_per_tok": 2,
              "vocab_size": 200064, "max_position_embeddings": 10240000,
              "attn_type_list": ([0] * 7 + [1]) * 10}
    model = imported(config)
    found = {g.attention.kind: g.count for g in model.layers}
    assert found == {"linear": 70, "gqa": 10}
    assert model.parameters_count == pytest.approx(456e9, rel=0.003)  # its card: 456 B, 45.9 active
    assert model.active_count == pytest.approx(45.9e9, rel=0.05)


def test_command_r7b_windows():
    config = SMALL | {"model_type": "cohere2", "sliding_window": 128, "num_hidden_layers": 8}
    found = {g.attention.window: g.count for g in imported(config).layers}
    assert found == {128: 6, None: 2}


def test_jamba():
    config = SMALL | {"model_type": "jamba", "num_hidden_layers": 8, "attn_layer_period": 8,
                      "attn_layer_offset": 4, "expert_layer_period": 2, "expert_layer_offset": 1,
                      "num_experts": 4, "num_experts_per_tok": 2, "mamba_d_state": 16}
    found = {(g.attention.kind, g.ffn.kind): g.count for g in imported(config).layers}
    assert found == {("ssm", "dense"): 3, ("ssm", "moe"): 4, ("gqa", "dense"): 1}


def test_windows():
    def spans(**fields: object) -> list[tuple[int, int | None]]:
        return [(g.count, g.attention.window) for g in imported(SMALL | fields).layers
                if isinstance(g.attention, Gqa)]
    assert spans(model_type="mistral", sliding_window=128) == [(4, 128)]
    assert spans(model_type="mistral", sliding_window=512) == [(4, None)]
    assert spans(model_type="qwen2", sliding_window=128, use_sliding_window=False) == [(4, None)]
    assert spans(model_type="qwen2", sliding_window=128, use_sliding_window=True,
                 max_window_layers=3) == [(3, None), (1, 128)]
    assert spans(model_type="gemma3_text", sliding_window=128, num_hidden_layers=12) == [
        (10, 128), (2, None)]


@pytest.mark.parametrize(
    ("section", "precision"),
    [
        (None, "bf16"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "fbgemm_fp8"}, "fp8"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "fp4"),
        ({"quant_algo": "FP8", "producer": {"name": "modelopt"}}, "fp8"),
        ({"quant_method": "awq", "bits": 4}, "int4"),
        ({"quant_method": "gptq", "bits": 8}, "int8"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8"),
        ({"quant_method": "compressed-tensors", "config_groups": {
            "group_0": {"weights": {"num_bits": 8, "type": "int"}}}}, "int8"),
        ({"quant_method": "compressed-tensors", "config_groups": {
            "group_0": {"weights": {"num_bits": 8, "type": "float"}}}}, "fp8"),
    ],
)
def test_precisions(section: dict[str, Any] | None, precision: str):
    assert imported(LLAMA | {"quantization_config": section}).native_precision == precision


def test_a_precision_in_the_name_is_used_and_noted(tmp_path: Path):
    model = imported(LLAMA, "llama-3.1-70b-nvfp4")
    assert model.native_precision == "fp4"
    assert "read from the name" in model.notes
    folder = tmp_path / "Llama 70B_Test"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    (folder / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "FP8"}}')
    read = read_model(folder)
    assert (read.name, read.native_precision) == ("llama-70b_test", "fp8")


@pytest.mark.parametrize(
    ("path", "stated", "name", "hub"),
    [
        ("config.json", "meta-llama/Llama-3.1-70B", "llama-3.1-70b", "meta-llama/Llama-3.1-70B"),
        ("config.json", "/ckpts/My Model (v2)/", "my-model-v2", ""),
        ("acme--Big-1_config.json", None, "big-1", "acme/Big-1"),
        ("plain.json", "", "plain", ""),
    ],
)
def test_names(tmp_path: Path, path: str, stated: str | None, name: str, hub: str):
    file = tmp_path / path
    file.write_text(json.dumps(LLAMA | {"_name_or_path": stated}))
    model = read_model(file)
    assert (model.name, model.huggingface) == (name, hub)
    assert model.sources == (str(file),)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('{\n "model_type": "llama",\n oops}', 3, "malformed JSON"),
        ("", 1, "malformed JSON"),
        ("[1, 2]", 1, "found a list, expected a JSON object"),
        ("null", 1, "found null"),
        ("[" * 100_000, 1, "malformed JSON"),
        ('{"hidden_size": ' + "9" * 5000 + "}", 1, "malformed JSON"),
        ("{}", 1, "model_type: found nothing"),
        ('{"model_type": "lama"}', 1, "found 'lama', did you mean 'llama'"),
        ('{"model_type": "bert"}', 1, "expected one of baichuan, bloom"),
        ('{"model_type": 7}', 1, "found 7, expected a string"),
        ('{"model_type": "llama", "text_config": []}', 1, "expected a mapping"),
        ('{"model_type": "nemotron_h", "layers_block_type": 3}', 1, "hybrid_override_pattern"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, line: int, message: str):
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        read_model(file)
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": None}, "hidden_size: found nothing, expected a whole number"),
        ({"vocab_size": None}, "vocab_size: found nothing"),
        ({"max_position_embeddings": None}, "max_position_embeddings"),
        ({"num_hidden_layers": -3}, "num_hidden_layers: found -3, expected a whole number of at "),
        ({"num_hidden_layers": 10**9}, "expected at most 10000 layers"),
        ({"num_hidden_layers": True}, "found True, expected a whole number"),
        ({"intermediate_size": "big"}, "intermediate_size: found 'big'"),
        ({"intermediate_size": 1e300}, "intermediate_size"),
        ({"hidden_size": float("inf")}, "hidden_size: found inf"),
        ({"num_attention_heads": 60}, "head_dim: found nothing, expected the head size"),
        ({"num_key_value_heads": 7}, "kv_heads must divide heads"),
        ({"attention_bias": "yes"}, "attention_bias: found 'yes', expected true or false"),
        ({"layer_types": ["full_attention"]}, "layer_types: found 1 entries, expected one for"),
        ({"layer_types": "all"}, "layer_types: found 'all', expected a list"),
        ({"quantization_config": 4}, "quantization_config: found 4, expected a mapping"),
        ({"model_type": "mixtral"}, "num_experts_per_tok: found nothing"),
        ({"model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 4},
         "top_k must not exceed experts"),
        ({"model_type": "deepseek_v3"}, "kv_lora_rank"),
        ({"model_type": "gemma4", "hidden_size_per_layer_input": 256}, "not supported"),
    ],
)
def test_bad_fields(change: dict[str, Any], message: str):
    with pytest.raises(InputError) as caught:
        imported(LLAMA | change)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mistakes_carry_their_line(tmp_path: Path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(LLAMA | {"vocab_size": -1}, indent=1))
    with pytest.raises(CatalogError) as caught:
        read_model(file)
    lines = file.read_text().splitlines()
    assert "vocab_size" in lines[caught.value.mistakes[0].line - 1]


def test_missing_file(tmp_path: Path):
    with pytest.raises(InputError, match=r"no such config\.json"):
        read_model(tmp_path / "nowhere" / "config.json")


#: Names that round: total in billions as the hub counts the checkpoint, and why the name differs.
ROUNDED = {
    "Qwen3-VL-2B": (2.128, "vision tower of 0.41"),
    "Qwen3-VL-4B": (4.438, "vision tower of 0.42"),
    "Qwen3-VL-8B": (8.767, "vision tower of 0.58"),
    "Qwen3-VL-30B": (31.07, "vision tower of 0.54"),
    "Qwen3-VL-32B": (33.36, "vision tower of 0.60"),
    "MiMo-7B": (7.62, "7.8 with its layer for multi-token prediction"),
    "Nemotron-3-Nano-30B": (31.58, "the card says 31.6"),
    "Nemotron-3.5-Lightning-30B": (31.58, "same shapes as Nemotron-3-Nano"),
    # sizes that are no totals: active parameters, and experts times a model
    "Llama-4-Maverick-17B": (400.71, "17B is active; the config is without its vision tower"),
    "Llama-4-Scout-17B": (107.77, "17B is active; the config is without its vision tower"),
    "Mixtral-8x7B": (46.70, "experts share their attention"),
    "Mixtral-8x22B": (140.62, "experts share their attention"),
}


@pytest.mark.skipif(not CONFIGS.is_dir(), reason="the real configs lie beside the checkout only")
def test_there_are_87_real_configs():
    assert len(list(CONFIGS.glob("*.json"))) == 87


@pytest.mark.parametrize(
    "file",
    sorted(CONFIGS.glob("*.json")) or [
        pytest.param(None, marks=pytest.mark.skip(reason="no real configs beside the checkout"))],
    ids=lambda path: path.stem if path else "none",
)
def test_real_configs(file: Path):
    model = read_model(file)
    assert validate(parse(model_to_yaml(model), "x.yaml"), Model) == model
    billions = model.parameters_count / 1e9
    total = re.search(r"-(\d+(?:\.\d+)?)B(?![a-z])", file.name)
    rounded = [stated for part, (stated, _why) in ROUNDED.items() if part in file.name]
    if rounded:
        assert billions == pytest.approx(rounded[0], rel=0.005)
    elif total:
        assert billions == pytest.approx(float(total[1]), rel=0.03)
    active = re.search(r"-A(\d+(?:\.\d+)?)B", file.name)
    if active:
        table = model.hidden * model.vocabulary
        low, high = 0.97 * (model.active_count - table), 1.03 * (model.active_count + table)
        assert low <= float(active[1]) * 1e9 <= high


@pytest.mark.parametrize("config", [LLAMA, DEEPSEEK], ids=["llama", "deepseek"])
def test_no_value_of_a_field_ends_in_a_traceback(config: dict[str, Any]):
    for field in config:
        for value in (None, -1, 0, "x", [], {}, 1.5, True, 10**13, float("nan"), [None] * 200):
            message = ""
            try:
                imported(config | {field: value})
            except InputError as error:
                message = str(error)
            assert "\n" not in message
