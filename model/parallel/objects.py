"""Python objects between ranks: as JSON, or as pickles that are signed.

A pickle runs what it says. torch's object collectives unpickle whatever arrives, and neither gloo nor the store by
which ranks meet knows who connects to them; so a pickle is sent here with a code that only the holders of the ranks'
secret can make (HMAC, SHA-256), and is looked at only where it fits. Ranks of one machine talk over its loopback.
"""

import hashlib
import hmac
import json
import os
import pickle
import secrets
import socket
import stat
import tempfile
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ...errors import ConfigError

SECRET = "VERIGYM_RANKS_SECRET"
"""Environment variable of the secret, the same for all ranks; needed where they are on several machines."""

_CODE_BYTES = 32
_secret: bytes | None = None

Group = dist.ProcessGroup | None


def use_secret(secret: bytes) -> None:
    """Sign with it from now on, in this process."""
    global _secret
    _secret = secret


def share_secret(group: Group = None, *, one_machine: bool, environment: Mapping[str, str] | None = None) -> None:
    """Have all ranks of a group sign with one secret: the environment's, or one that rank 0 makes and leaves in a file
    that only this user of this machine can read.

    Raises:
        ConfigError: the ranks are on several machines and the environment has none, or another user's file came.
    """
    given = (os.environ if environment is None else environment).get(SECRET, "").strip()
    if given:
        use_secret(given.encode())
        return
    if not one_machine:
        raise ConfigError(
            f"what ranks on several machines tell each other must be signed; set {SECRET} to the same long random text "
            "for all of them (python -c 'import secrets; print(secrets.token_hex())')"
        )
    if dist.get_rank(group) > 0:
        use_secret(_left_by_us(Path(_broadcast(b"", group).decode())))
        dist.barrier(group)
        return
    with tempfile.TemporaryDirectory(prefix="verigym-ranks-") as folder:
        file = Path(folder) / "secret"
        file.touch(mode=0o600)
        file.write_bytes(secrets.token_bytes(_CODE_BYTES))
        use_secret(file.read_bytes())
        _broadcast(str(file).encode(), group)
        dist.barrier(group)


def stay_on_this_machine(environment: MutableMapping[str, str] | None = None) -> None:
    """Have gloo and NCCL listen on the loopback device alone, unless the environment names another."""
    values = os.environ if environment is None else environment
    name = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if name is not None:
        values.setdefault("GLOO_SOCKET_IFNAME", name)
        values.setdefault("NCCL_SOCKET_IFNAME", name)


def broadcast(value: Any, *, group: Group = None) -> Any:
    """What rank 0 of a group gives, on all its ranks."""
    if dist.get_rank(group) == 0:
        _broadcast(_signed(value), group)
        return value
    return _opened(_broadcast(b"", group))


def scatter(values: Sequence[Any] | None, *, group: Group = None) -> Any:
    """Each rank's part of what rank 0 of a group gives; on other ranks ``values`` is not looked at.

    Raises:
        RuntimeError (torch's): another rank is gone.
    """
    mine = dist.get_rank(group) == 0
    parts = [_signed(value) for value in values or ()] if mine else []
    sizes = _number(max(map(len, parts), default=0), group)
    dist.broadcast(sizes, group=group, group_src=0)
    size, longest = _number(0, group), int(sizes.item())
    dist.scatter(size, [_number(len(part), group) for part in parts] or None, group=group, group_src=0)
    received = torch.empty(longest, dtype=torch.uint8, device=_device(group))
    dist.scatter(received, [_padded(part, longest, group) for part in parts] or None, group=group, group_src=0)
    return values[0] if values and mine else _opened(_bytes(received, int(size.item())))


def gather(value: Any, *, group: Group = None) -> list[Any] | None:
    """What all ranks of a group give, on its rank 0; None elsewhere."""
    data, world = _signed(value), dist.get_world_size(group)
    sizes = [_number(0, group) for _ in range(world)]
    dist.all_gather(sizes, _number(len(data), group), group=group)
    longest = max(int(size.item()) for size in sizes)
    room = None
    if dist.get_rank(group) == 0:
        room = [torch.empty(longest, dtype=torch.uint8, device=_device(group)) for _ in range(world)]
    dist.gather(_padded(data, longest, group), room, group=group, group_dst=0)
    if room is None:
        return None
    return [value, *(_opened(_bytes(part, int(size.item()))) for part, size in zip(room[1:], sizes[1:], strict=True))]


def broadcast_json(value: Any, *, group: Group = None) -> Any:
    """``broadcast`` of JSON values; it needs no secret."""
    return json.loads(_broadcast(json.dumps(value).encode() if dist.get_rank(group) == 0 else b"", group))


def all_gather_json(value: Any, *, group: Group = None) -> list[Any]:
    """What all ranks of a group give, in JSON, on all of them."""
    data = json.dumps(value).encode()
    sizes = [_number(0, group) for _ in range(dist.get_world_size(group))]
    dist.all_gather(sizes, _number(len(data), group), group=group)
    longest = max(int(size.item()) for size in sizes)
    room = [torch.empty(longest, dtype=torch.uint8, device=_device(group)) for _ in sizes]
    dist.all_gather(room, _padded(data, longest, group), group=group)
    return [json.loads(_bytes(part, int(size.item()))) for part, size in zip(room, sizes, strict=True)]


def _signed(value: Any) -> bytes:
    data = pickle.dumps(value)
    return _code(data) + data


def _opened(data: bytes) -> Any:
    """Raises RuntimeError where the sender has not the ranks' secret; nothing is unpickled then."""
    code, body = data[:_CODE_BYTES], data[_CODE_BYTES:]
    if not hmac.compare_digest(code, _code(body)):
        raise RuntimeError("what another rank sent is not signed with the ranks' secret: it is no rank of this run")
    return pickle.loads(body)


def _code(data: bytes) -> bytes:
    assert _secret is not None, "ranks agree on a secret (share_secret) before they send objects"
    return hmac.digest(_secret, data, hashlib.sha256)  # type: ignore[arg-type]


def _left_by_us(file: Path) -> bytes:
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as opened:
        facts = os.fstat(descriptor)
        if facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) & 0o077:
            raise ConfigError(f"the ranks' secret in {file} is of another user; set {SECRET} for all ranks")
        return opened.read()


def _broadcast(data: bytes, group: Group) -> bytes:
    size = _number(len(data), group)
    dist.broadcast(size, group=group, group_src=0)
    room = _padded(data, int(size.item()), group)
    dist.broadcast(room, group=group, group_src=0)
    return _bytes(room, int(size.item()))


def _number(value: int, group: Group) -> Tensor:
    return torch.tensor([value], dtype=torch.int64, device=_device(group))


def _padded(data: bytes, size: int, group: Group) -> Tensor:
    return torch.frombuffer(bytearray(data.ljust(size, b"\0")), dtype=torch.uint8).to(_device(group))


def _bytes(data: Tensor, size: int) -> bytes:
    return data[:size].cpu().numpy().tobytes()


def _device(group: Group) -> torch.device:
    return torch.device("cuda" if dist.get_backend(group) == "nccl" else "cpu")
