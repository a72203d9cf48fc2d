"""What a policy is: two runs are of one only where its chat template is one."""

import pytest

from verigym.errors import ConfigError
from verigym.trainer.policies import build_policy


def test_a_policy_with_another_template_is_another_policy(family_checkpoint, tmp_path):
    spec, own = f"tokens:{family_checkpoint}@http://127.0.0.1:9#m", tmp_path / "own.jinja"
    found = [build_policy(spec, chat_template=name).identity for name in (None, "plain", "chatml")]
    for text in ("", "\n"):
        own.write_text((family_checkpoint / "chat_template.jinja").read_text() + text)
        found.append(build_policy(spec, chat_template=str(own)).identity)
    assert len({tuple(sorted(one.items())) for one in found}) == len(found)


@pytest.mark.parametrize("spec", ["gold", "openai:http://127.0.0.1:9/v1#m"])
def test_a_policy_without_a_tokenizer_takes_no_template(spec):
    with pytest.raises(ConfigError, match="has none; leave it out"):
        build_policy(spec, chat_template="plain")
