"""Properties of the machine code of the Triton kernels, without a GPU: access widths, registers, spills, bytes moved.

    python benchmarks/triton_gate.py        (part of `make test`, which checks every row; table in benchmarks/README.md)

Each kernel is compiled ahead of time for sm_80, sm_90 and gfx942. The tools that come with Triton disassemble NVIDIA code.
`bytes` counts what all threads of a program load and store, without lam and the partial sums; `ideal` counts every input read
once and every output written once.
Writes benchmarks/results/triton_gate.json.
"""

import json
import math
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from wavegan_dist.files import atomic_file
from wavegan_dist.provenance import provenance
from wavegan_dist.wavelet.triton import kernels

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
TARGETS = {"sm_80": GPUTarget("cuda", 80, 32), "sm_90": GPUTarget("cuda", 90, 32), "gfx942": GPUTarget("hip", "gfx942", 64)}
SIZES = {"fp32": 4, "bf16": 2, "fp16": 2}
WIDTH = 128  # of the bands; the compiler gets the hint that this is a multiple of 16
# The kernels' arguments in order: I an image as pairs, B a band, L lam, S partial sums.
ARGUMENTS = {"dwt": "IBB", "idwt": "BBI", "fuse": "IBBLI", "fuse_backward": "IIBBLIBBS"}
IMAGES_MOVED = {"dwt": 2, "idwt": 2, "fuse": 3, "fuse_backward": 5}  # the bands of an image have as many bytes as the image


@dataclass(frozen=True)
class Row:
    """The machine code of one kernel for one dtype and target. `bytes` and `ideal` are for one program."""

    kernel: str
    dtype: str
    target: str
    image_bits: list[int]
    band_bits: list[int]
    shared: int
    barriers: int
    spills: int
    registers: int
    bytes: int
    ideal: int


def main() -> None:
    """Compile all kernels, print a table, write JSON."""
    rows = gate()
    print(f"{'kernel':<14} {'dtype':<5} {'target':<7} {'accesses, bits':<22} {'shared':>6} {'barriers':>8} {'spills':>6} {'registers':>9} {'bytes':>7} {'ideal':>7}")  # fmt: skip # noqa: E501
    for row in rows:
        widths = f"{row.image_bits} {row.band_bits}"
        print(f"{row.kernel:<14} {row.dtype:<5} {row.target:<7} {widths:<22} {row.shared:>6} {row.barriers:>8} {row.spills:>6} {row.registers:>9} {row.bytes:>7} {row.ideal:>7}")  # fmt: skip # noqa: E501
    out = Path(__file__).parent / "results" / "triton_gate.json"
    with atomic_file(out) as file:
        json.dump({"triton": triton.__version__, "rows": [asdict(row) for row in rows]} | provenance(), file, indent=2)
    print(out)


def gate() -> list[Row]:
    """Return a row for every kernel, dtype and target."""
    return [inspect(kernel, dtype, target) for kernel in ARGUMENTS for dtype in SIZES for target in TARGETS]


def inspect(kernel: str, dtype: str, target: str) -> Row:
    """Compile a kernel and examine its machine code."""
    tile = kernels.tile(WIDTH, SIZES[dtype], TARGETS[target].warp_size)
    code = source(kernel, dtype, tile)
    compiled = triton.compile(code, target=TARGETS[target], options={"num_warps": kernels.WARPS})
    ideal = IMAGES_MOVED[kernel] * 4 * math.prod(tile) * SIZES[dtype]
    common = {"kernel": kernel, "dtype": dtype, "target": target, "shared": compiled.metadata.shared, "ideal": ideal}
    if target == "gfx942":
        text = compiled.asm["amdgcn"]
        widths = [_amd_bits(kind) for kind in re.findall(r"(?:global|buffer|flat)_(?:load|store)_(\w+)", text)]
        spills = sum(map(int, re.findall(r"[sv]gpr_spill_count: +(\d+)", text)))
        registers = int(re.findall(r"\.vgpr_count: +(\d+)", text)[0])
        counts = {"barriers": text.count("s_barrier"), "spills": spills, "registers": registers}
    else:
        counts, widths = disassemble(compiled.asm["cubin"])
    for bits in {"fuse": [32], "fuse_backward": [32, 32]}.get(kernel, []):  # lam, and one partial sum per program
        if bits in widths:  # on AMD, lam is a scalar load, which is not among them
            widths.remove(bits)
    image, bands = sorted({bits for bits in widths if bits == 128}), sorted({bits for bits in widths if bits != 128})
    moved = sum(widths) // 8 * TARGETS[target].warp_size * kernels.WARPS
    return Row(**common, **counts, image_bits=image, band_bits=bands, bytes=moved)


def source(kernel: str, dtype: str, tile: tuple[int, int], ones: Sequence[str] = ()) -> ASTSource:
    """Specialize a kernel for a dtype and tile, with pointers and sizes that are multiples of 16, as Triton does at a launch.

    Args:
        kernel: key of ARGUMENTS.
        dtype: key of SIZES.
        tile: (TILE_H, TILE_W).
        ones: names of sizes ("rows", "width", "ch") that are 1. Triton turns them into constants.
    """
    pairs = "*i64" if dtype == "fp32" else "*i32"
    types = {"I": pairs, "B": f"*{dtype}", "L": "*fp32", "S": "*fp32"}
    function = getattr(kernels, kernel)
    kinds = [types[letter] for letter in ARGUMENTS[kernel]]
    kinds += ["constexpr" if name in ones else "i32" for name in ("rows", "width", "ch")]
    signature = dict(zip(function.arg_names, [*kinds, "constexpr", "constexpr"], strict=True))
    divisible = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(kinds) if kind != "constexpr"}
    constants = {"TILE_H": tile[0], "TILE_W": tile[1], **dict.fromkeys(ones, 1)}
    return ASTSource(function, signature, constants, divisible)


def disassemble(cubin: bytes) -> tuple[dict[str, int], list[int]]:
    """Return barriers, spills and registers of NVIDIA machine code, and the width in bits of every global memory access."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        sass = subprocess.run([TOOLS / "nvdisasm", file], capture_output=True, text=True, check=True).stdout
        usage = subprocess.run([TOOLS / "cuobjdump", "-res-usage", file], capture_output=True, text=True, check=True).stdout
    counts = {
        "barriers": len(re.findall(r"\bBAR\.", sass)),
        "spills": len(re.findall(r"\b(?:LDL|STL)\b", sass)),
        "registers": int(re.findall(r"REG:(\d+)", usage)[0]),
    }
    return counts, [_bits(suffixes) for suffixes in re.findall(r"\b(?:LDG|STG)((?:\.\w+)*)", sass)]


def _bits(suffixes: str) -> int:
    size = re.search(r"\.(?:U|S)?(8|16|64|128)\b", suffixes)
    return int(size.group(1)) if size else 32


def _amd_bits(kind: str) -> int:
    dwords = re.fullmatch(r"dword(?:x(\d))?", kind)
    return 32 * int(dwords.group(1) or 1) if dwords else 8 if "byte" in kind else 16


if __name__ == "__main__":
    main()
