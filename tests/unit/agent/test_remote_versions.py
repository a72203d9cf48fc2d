"""Of which weights a token is, where the server says so and where it says nothing."""

import asyncio

import pytest

from verigym.agent.remote_engine import RemoteEngine
from verigym.model.chat.sampling import Sampling


class Endpoint:
    """Answers with two tokens; new weights arrive while it is asked."""

    def __init__(self, told):
        self.told, self.engine = told, None

    def url(self, path):
        return f"http://server{path}"

    async def post(self, path, body, **_):
        self.engine._version = 8
        choice = {"token_ids": [5, 6], "logprobs": {"token_logprobs": [-1.0, -2.0]}, "finish_reason": "stop"}
        return {"choices": [{**choice, **self.told}]}


@pytest.mark.parametrize(
    ("told", "versions"),
    [
        ({}, (7, 7)),  # the oldest weights that can have sampled them
        ({"policy_version": [7, 8]}, (7, 8)),
        ({"policy_version": [8]}, (7, 7)),  # not one for each token
    ],
)
def test_a_token_has_the_servers_version_or_that_from_before_its_request(told, versions):
    endpoint = Endpoint(told)
    endpoint.engine = RemoteEngine(endpoint, "toy", 64, 7)
    completion = asyncio.run(endpoint.engine.generate([1, 2], Sampling(max_tokens=2), ()))
    assert completion.policy_version == versions
    assert endpoint.engine.policy_version == 8
