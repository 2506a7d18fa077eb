"""The file formats of `wavegan export`: how each is written, and how its file is run to check it."""

import importlib.util
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from wavegan_dist.errors import UsageError

OPSET = 18  # of ONNX; ONNX Runtime supports it from version 1.14 (2023) on
MAX_ONNX_BYTES = 2**31 - 2**24  # a Protocol Buffers file has at most 2 GiB; the rest is for the graph
METADATA = "metadata.json"  # the file inside a .pt2 file

Metadata = Mapping[str, str]
Run = Callable[..., Tensor]  # runs a file: the inputs of the program -> its images


@dataclass(frozen=True)
class Format:
    """A file format.

    Args:
        name: the name in `--format`.
        file: name of the file.
        encode: turns a program and its metadata into the content of the file.
        load: turns the content of a file into a function that runs it on the CPU.
        pixels: the output is uint8 0..255 instead of float32 in about [-1, 1].
        packages: modules of the extra `export` that the format needs.
    """

    name: str
    file: str
    encode: Callable[[ExportedProgram, Metadata], bytes]
    load: Callable[[bytes], Run]
    pixels: bool = False
    packages: tuple[str, ...] = ()


def find_formats(names: str) -> list[Format]:
    """Return the formats that a comma-separated list names, in the order of the list, without duplicates.

    Raises:
        UsageError: a name is not a format, or the packages that a format needs are not installed.
    """
    known = {format.name: format for format in FORMATS}
    for name in (chosen := dict.fromkeys(name.strip() for name in names.split(","))):
        if name not in known:
            raise UsageError(f"--format {name}: there is no such format; choose from {', '.join(known)}")
        if missing := [package for package in known[name].packages if importlib.util.find_spec(package) is None]:
            raise UsageError(f"--format {name} needs {missing[0]}, which is not installed: pip install 'wavegan-dist[export]'")
    return [known[name] for name in chosen]


def encode_onnx(program: ExportedProgram, metadata: Metadata) -> bytes:
    """Return the content of an ONNX file with the inputs of the program and the output `images`.

    Raises:
        UsageError: the weights are too large for a single ONNX file.
    """
    if sum(tensor.nbytes for tensor in program.state_dict.values()) > MAX_ONNX_BYTES:
        raise UsageError("--format onnx: an ONNX file holds at most 2 GB, and this generator is larger; use --format pt2")
    names_of_sizes = ({0: "batch"}, None)[: len(program.graph_signature.user_inputs)]  # labels have the same size as z
    translations: dict[Any, Any] = {torch.ops.aten.scaled_dot_product_attention.default: _attention}
    converted = torch.onnx.export(
        program, dynamo=True, opset_version=OPSET, dynamic_shapes=names_of_sizes, output_names=["images"], verbose=False,
        custom_translation_table=translations,
    )  # fmt: skip
    assert converted is not None
    model = converted.model
    for node in model.graph.all_nodes():
        node.metadata_props.clear()  # they name the Python file and line that the node comes from
    model.metadata_props.update(metadata)
    content: bytes = converted.model_proto.SerializeToString()
    return content


def _attention(query: Any, key: Any, value: Any, *, scale: float) -> Any:
    """Dot-product attention [B, N, C] in ONNX: PyTorch's own translation takes four dimensions only."""
    from onnxscript import opset18 as op

    scores = op.MatMul(query, op.Transpose(key, perm=[0, 2, 1]))
    return op.MatMul(op.Softmax(op.Mul(scores, op.Constant(value_float=scale)), axis=-1), value)


def load_onnx(content: bytes) -> Run:
    """Return a function that runs the content of an ONNX file on the CPU: it takes the inputs in the order of the file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        arrays = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, arrays)[0])

    return run


def encode_pt2(program: ExportedProgram, metadata: Metadata) -> bytes:
    """Return the content of a .pt2 file of a program, with its metadata as JSON inside."""
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={METADATA: json.dumps(metadata)})
    return content.getvalue()


def load_pt2(content: bytes) -> Run:
    """Return the module in the content of a .pt2 file, which runs on the CPU and takes the inputs of the program."""
    return torch.export.load(io.BytesIO(content)).module()


ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
FORMATS = (
    Format("onnx", "generator.onnx", encode_onnx, load_onnx, packages=ONNX_PACKAGES),
    Format("onnx-uint8", "generator-uint8.onnx", encode_onnx, load_onnx, pixels=True, packages=ONNX_PACKAGES),
    Format("pt2", "generator.pt2", encode_pt2, load_pt2),
)
