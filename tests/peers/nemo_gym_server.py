"""Resources servers of NeMo Gym's own package, each at /NAME: python nemo_gym_server.py PORT NAME ..., with the Python
that has it.

Its command line starts Ray, a head server and a configuration service around it; a server alone is what an adapter
meets. Classes, routes and sessions are the package's.
"""

import importlib
import inspect
import sys
from unittest.mock import MagicMock

import uvicorn
from nemo_gym.base_resources_server import SimpleResourcesServer
from nemo_gym.server_utils import ServerClient
from starlette.applications import Starlette
from starlette.routing import Mount


def server_class(module):
    """The server that a module defines."""
    own = [one for one in vars(module).values() if inspect.isclass(one) and one.__module__ == module.__name__]
    return next(one for one in own if issubclass(one, SimpleResourcesServer))


def application(name):
    """A server of the package, as it sets itself up."""
    found = server_class(importlib.import_module(f"resources_servers.{name}.app"))
    kind = found.model_fields["config"].annotation
    config = kind(host="127.0.0.1", port=0, entrypoint="app.py", name=name, domain="other")
    client = MagicMock(spec=ServerClient)  # for servers that ask others; these ask none
    return found(config=config, server_client=client).setup_webserver()


def main():
    port, names = int(sys.argv[1]), sys.argv[2:]
    routes = [Mount(f"/{name}", application(name)) for name in names]
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=port)


if __name__ == "__main__":
    main()
