from dataclasses import replace

import pytest
import torch
import transformers

from verigym.errors import ConfigError
from verigym.model.config import PRESETS, preset
from verigym.model.decoder import Decoder
from verigym.model.families.find import read_config, write_config

from .conftest import small_config


@pytest.mark.parametrize("name", PRESETS)
def test_hugging_face_dict_and_back(name: str) -> None:
    config = preset(name)
    assert read_config(write_config(config)) == config


def test_the_older_form_of_config_json_is_read() -> None:
    row = write_config(preset("cwm-32b"))
    rope = row.pop("rope_parameters")
    row["rope_theta"] = rope.pop("rope_theta")
    row["rope_scaling"] = rope
    assert read_config(row) == preset("cwm-32b")


def test_the_checkpoints_layer_types_win() -> None:
    types = ("sliding_attention", "full_attention", "sliding_attention")
    row = write_config(small_config(layer_types=types))
    assert read_config(row).layer_types == types


def test_every_fourth_layer_of_cwm_and_the_last_are_global() -> None:
    types = preset("cwm-32b").layer_types
    assert [layer for layer, kind in enumerate(types) if kind == "full_attention"] == [*range(0, 64, 4), 63]


def test_transformers_reads_the_same_numbers() -> None:
    theirs = transformers.CwmConfig(**write_config(preset("cwm-32b")))
    assert read_config(theirs.to_dict()) == preset("cwm-32b")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 5}, "num_heads 5 is not a multiple of num_kv_heads 2"),
        ({"layer_types": ("full_attention",)}, "layer_types lists 1 layers but num_layers is 3"),
        ({"layer_types": ("full_attention", "x", "full_attention")}, r"layer_types\[1\] is 'x'"),
        ({"head_dim": 7}, "head_dim is 7"),
        ({"sliding_window": 0}, "sliding_window is 0"),
    ],
)
def test_what_cannot_be_built_is_named(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_config(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "phi3"}, "model_type 'phi3'"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings True"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "rope_type 'longrope'"),
    ],
)
def test_another_architecture_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(write_config(small_config()) | changes)


def test_a_missing_field_and_an_unknown_preset_are_named() -> None:
    row = write_config(small_config())
    del row["head_dim"]
    with pytest.raises(ConfigError, match="'head_dim'"):
        read_config(row)
    with pytest.raises(
        ConfigError, match=r"'cwm-huge'; presets are cwm-32b, cwm-32b-slice, qwen3-32b, llama-3\.3-70b, cwm-tiny"
    ):
        preset("cwm-huge")


def test_the_first_mismatch_is_named() -> None:
    config = small_config()
    assert config.first_mismatch(config) is None
    assert config.first_mismatch(replace(config, hidden_size=64)) == "hidden_size is 64, expected 32"


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [("cwm-32b", 32_581_097_472), ("qwen3-32b", 32_762_123_264), ("llama-3.3-70b", 70_553_706_496)],
)
def test_parameters_of_the_shapes_to_plan_with(name, num_parameters):
    """Counted in our decoder and in the model that transformers makes of our config.json, neither of which is held."""
    with torch.device("meta"):
        ours = Decoder(preset(name))
        config = transformers.AutoConfig.for_model(**write_config(preset(name)))
        theirs = transformers.AutoModelForCausalLM.from_config(config)
    assert sum(one.numel() for one in ours.parameters()) == num_parameters
    assert sum(one.numel() for one in theirs.parameters()) == num_parameters
