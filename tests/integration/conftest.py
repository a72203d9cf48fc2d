import json
import secrets

import pytest


@pytest.fixture(scope="session")
def published_rows(tmp_path_factory):
    """A file of two rows in SWE-bench 5's own form, whose images are built here and removed at the end."""
    from verigym.__main__ import main
    from verigym.envs.datasets.swe_examples import example_tasks
    from verigym.envs.sandbox.choose import make_backend
    from verigym.errors import SandboxError

    try:
        make_backend("docker")
    except SandboxError as error:
        pytest.skip(f"no Docker engine: {error}")
    import docker

    folder = tmp_path_factory.mktemp("published")
    rows, published = folder / "rows.jsonl", folder / "published.jsonl"
    run = {"TEST_RUN": secrets.token_hex(4)}  # no other run of the tests has the same images
    hidden = [task.hidden for task in example_tasks()]
    rows.write_text("".join(json.dumps({**row, "env": {**row["env"], **run}}) + "\n" for row in hidden))
    assert main(["tasks", "build-images", str(rows), "--out", str(published), "--as-published"]) == 0
    yield published
    client = docker.from_env()
    for line in published.read_text().splitlines():
        client.images.remove(json.loads(line)["image"], force=True)
    client.close()
