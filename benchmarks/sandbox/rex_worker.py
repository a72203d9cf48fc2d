"""SWE-ReX's part of sessions.py, run by a Python that has swe-rex and no verigym: IMAGE NUMBER -> a line of JSON."""

import asyncio
import json
import logging
import sys
import time

from swerex.deployment.docker import DockerDeployment
from swerex.runtime.abstract import BashAction, CreateBashSessionRequest


async def main(image, number):
    logging.disable(logging.CRITICAL)
    began = time.perf_counter()
    deployment = DockerDeployment(image=image, pull="never", startup_timeout=60)
    await deployment.start()
    runtime, taken = deployment.runtime, []
    await runtime.create_session(CreateBashSessionRequest())
    await runtime.run_in_session(BashAction(command="echo hi"))
    start = time.perf_counter() - began
    for _ in range(number):
        began = time.perf_counter()
        assert (await runtime.run_in_session(BashAction(command="echo hi"))).output.strip() == "hi"
        taken.append(time.perf_counter() - began)
    await deployment.stop()
    print(json.dumps({"start": start, "command": taken}))


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
