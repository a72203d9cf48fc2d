"""What a kernel takes of a GPU, read from its machine code without one: registers, spills, shared memory."""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOPPER = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One way a kernel is launched in production.

    Attributes:
        name: for tables.
        kernel: the function made by ``triton.jit``.
        types: of its arguments in order: "*bf16" for pointers, "i32", "fp32". Pointers and numbers whose name ends in
            "stride" are taken as multiples of 16, as they are for the model's shapes.
        constants: values of its compile-time arguments.
        spill_free: whether a spill is a fault here.
    """

    name: str
    kernel: Any
    types: Mapping[str, str]
    constants: Mapping[str, Any]
    num_warps: int
    num_stages: int
    spill_free: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Attributes: registers of a thread; bytes a thread spills (stores and loads); bytes of shared memory a program."""

    registers: int
    spilled_bytes: int
    shared_bytes: int


def resources_of(launch: Launch, capability: int = HOPPER) -> Resources:
    """Compile a launch for a compute capability; needs Triton, and neither a GPU nor a driver.

    Raises:
        RuntimeError: Triton was imported with its interpreter on, which compiles nothing.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    if not hasattr(launch.kernel, "arg_names") or type(launch.kernel).__name__ == "InterpretedFunction":
        raise RuntimeError("Triton's interpreter is on; start the process with TRITON_INTERPRET unset")
    names = launch.kernel.arg_names
    missing = [name for name in names if name not in launch.types and name not in launch.constants]
    assert not missing, f"{launch.name}: no type for {missing}"
    signature = {name: "constexpr" if name in launch.constants else launch.types[name] for name in names}
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(names)
        if signature[name].startswith("*") or name.endswith("stride")
    }
    source = ASTSource(
        fn=launch.kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in launch.constants.items()},
        attrs=aligned,
    )
    options = {"num_warps": launch.num_warps, "num_stages": launch.num_stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    registers, spilled = _assembled(compiled.asm["ptx"], capability)
    return Resources(registers=registers, spilled_bytes=spilled, shared_bytes=compiled.metadata.shared)


def _assembled(ptx: str, capability: int) -> tuple[int, int]:
    """(registers of a thread, bytes spilled) as NVIDIA's assembler, which comes with Triton, reports them."""
    from triton import knobs

    with tempfile.TemporaryDirectory(prefix="verigym-ptx-") as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        architecture = f"sm_{capability}a" if capability >= HOPPER else f"sm_{capability}"
        command = [knobs.nvidia.ptxas.path, "-v", f"--gpu-name={architecture}", str(source), "-o", f"{folder}/kernel"]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = max(int(count) for count in re.findall(r"Used (\d+) registers", report))
    spilled = sum(int(count) for count in re.findall(r"(\d+) bytes spill (?:stores|loads)", report))
    return registers, spilled
