"""SPEC to policy."""

from pathlib import Path

import pytest

from verigym.agent.sources import text_source, tokens_checkpoint, tokens_source
from verigym.errors import ConfigError


def test_an_openai_spec_names_server_and_model():
    source = text_source("openai:http://localhost:8000/v1#org/model:tag")
    assert source.identity == {"model": "org/model:tag"}
    assert source.policy_for(None, None) is source.policy_for(None, None)


@pytest.mark.parametrize("spec", ["openai:", "openai:http://localhost", "openai:#m", "openai:localhost#m", "openai"])
def test_an_openai_spec_without_its_parts_is_refused(spec):
    with pytest.raises(ConfigError, match="openai:BASE_URL#MODEL"):
        text_source(spec)


@pytest.mark.parametrize("spec", ["golden", "gold:x", "", "vllm:x"])
def test_an_unknown_spec_is_refused_with_the_known_ones(spec):
    with pytest.raises(
        ConfigError, match="a policy is engine:CHECKPOINT, tokens:CHECKPOINT@BASE_URL#MODEL, openai:BASE_URL#MODEL"
    ):
        text_source(spec)


@pytest.mark.parametrize("spec", ["tokens:", "tokens:a@http://b", "tokens:http://b#m", "tokens:a#m", "tokens:a@b#m"])
def test_a_tokens_spec_without_its_parts_is_refused(spec):
    with pytest.raises(ConfigError, match="tokens:CHECKPOINT@BASE_URL#MODEL"):
        tokens_checkpoint(spec)


def test_a_tokens_spec_names_checkpoint_server_and_model():
    spec = "tokens:runs/a@b/model@https://host:8000#org/model:tag"
    assert tokens_checkpoint(spec) == Path("runs/a@b/model")
    assert tokens_source(spec, None, None).identity == {"model": "org/model:tag"}
