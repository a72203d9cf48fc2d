"""``verigym images``: container images of the sandbox ``oci``, which needs no container engine."""

import argparse
from typing import Any

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.zst")
"""Ends of names that are a file's, also where there is none: no registry is asked for those."""


def register(commands: Any) -> None:
    """Add ``images`` and its commands to an argparse object of subparsers."""
    images = commands.add_parser("images", help="bring container images for the sandbox oci, list and remove them")
    kinds = images.add_subparsers(metavar="COMMAND", required=True)

    add = kinds.add_parser(
        "add",
        help="unpack images of archives, OCI layouts or a registry into the cache",
        description="Unpack images into the cache, each layer once, so that --sandbox oci starts them. SOURCE is an "
        "archive of docker save, docker-archive:FILE, oci-archive:FILE, oci:FOLDER (each with :NAME where there are "
        "several images), or a name at a registry, which skopeo pulls.",
    )
    add.add_argument("source", nargs="+", metavar="SOURCE", help="a file, oci:FOLDER, or REGISTRY/NAME:TAG")
    add.add_argument("--name", metavar="NAME", help="the name that rows have for it (default: the names it comes with)")
    add.set_defaults(run=run_add)

    show = kinds.add_parser("list", help="the images that are here, with their size on the disk")
    show.set_defaults(run=run_list)

    remove = kinds.add_parser("remove", help="forget images, and remove the layers that no other image has")
    remove.add_argument("name", nargs="+", metavar="NAME", help="a name, or an id (sha256:...)")
    remove.set_defaults(run=run_remove)


def run_add(args: argparse.Namespace) -> int:
    import asyncio
    from pathlib import Path

    from ...errors import ConfigError
    from ..sandbox.oci.pull import Puller, is_source
    from ..sandbox.oci.store import ImageStore
    from ..sandbox.settings import SandboxSettings

    if args.name and len(args.source) > 1:
        raise ConfigError(f"--name {args.name}: {len(args.source)} sources cannot have one name; add one at a time")
    store = ImageStore()
    for source in args.source:
        if is_source(source) or Path(source).exists() or source.endswith(ARCHIVES):
            images = store.add(source, name=args.name)
        else:
            images = [asyncio.run(Puller(store, SandboxSettings()).image(source))]
            if args.name:
                store.name(images[0], args.name)
        for image in images:
            print(f"{source}: {image.id[:19]}, {len(image.layers)} layers")
    print(f"in {store.folder}; run it with: --sandbox oci")
    return 0


def run_list(args: argparse.Namespace) -> int:
    from ..sandbox.oci.store import ImageStore
    from .terminal import table

    kept = ImageStore().images()
    table(
        f"{len(kept)} images",
        ("names", "id", "layers", "MB"),
        (
            (", ".join(one.names) or "-", one.image.id[7:19], len(one.image.layers), f"{one.num_bytes / 1e6:.0f}")
            for one in kept
        ),
    )
    return 0


def run_remove(args: argparse.Namespace) -> int:
    from ..sandbox.oci.store import ImageStore

    store = ImageStore()
    for name in args.name:
        print(f"{name}: {store.remove(name)} layers removed")
    return 0
