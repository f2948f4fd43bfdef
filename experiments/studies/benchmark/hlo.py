"""What a compiled program moves through memory, read off its text.

XLA's own count (`compiled.cost_analysis()`) does not know library calls: on GPUs convolutions and
matrix products are such calls, and it answers -1 or leaves them out (jax-ml/jax#16008, #17912). The
text names the shapes of every operand and result on every backend.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_NAME = r"%[\w.\-]+"
_SHAPE = re.compile(r"\b(pred|bf16|[a-z]\d+\w*)\[([\d,]*)\]")
_INSTRUCTION = re.compile(rf"^\s+(?:ROOT )?({_NAME}) = (.+?) ([\w\-]+)\((.*)$")
_COMPUTATION = re.compile(rf"^(ENTRY )?({_NAME}) .*\{{$")
_CALLED = re.compile(rf"(?:to_apply|body|calls)=({_NAME})")

_FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all"}
"""Instructions that move nothing."""

_CONTAINERS = {"call", "while", "async-start", "async-done"}
"""Instructions that only run others; the body of a loop counts once."""


class _Instruction(NamedTuple):
    name: str
    shape: str
    opcode: str
    rest: str


def program_bytes(text: str) -> int:
    """Bytes that the kernels of a compiled program read and write.

    Every kernel reads its operands once and writes its results once; what a fusion keeps to itself
    is free, so is scratch memory of a library call. An operand of which a kernel reads a part is
    counted whole.

    Args:
      text: `compiled.as_text()`.

    Returns:
      Bytes; a loop counts as one pass of its body.

    References:
      House definition.
    """
    computations, entry = _parse(text)
    return sum(_bytes_of(entry, computations))


def _parse(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    computations: dict[str, list[_Instruction]] = {}
    name = entry = ""
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            name = found[2]
            entry = name if found[1] else entry
            computations[name] = []
        elif found := _INSTRUCTION.match(line):
            computations[name].append(_Instruction(*found.groups()))
    if not entry:
        raise ValueError("text: must be a compiled program with an ENTRY computation")
    return computations, entry


def _bytes_of(name: str, computations: dict[str, list[_Instruction]]) -> Iterator[int]:
    sizes = {}
    for instruction in computations[name]:
        sizes[instruction.name] = _result_bytes(instruction)
        if instruction.opcode in _CONTAINERS:
            for called in _CALLED.findall(instruction.rest):
                yield from _bytes_of(called, computations)
        elif instruction.opcode not in _FREE:
            operands = set(re.findall(_NAME, instruction.rest.partition(")")[0]))
            yield sizes[instruction.name] + sum(sizes.get(operand, 0) for operand in operands)


def _result_bytes(instruction: _Instruction) -> int:
    parts = _SHAPE.findall(instruction.shape)
    if instruction.opcode == "custom-call" and len(parts) > 1 and parts[-1][0] == "u8":
        parts = parts[:-1]
    return sum(_bytes_per_element(kind) * _num_elements(axes) for kind, axes in parts)


def _num_elements(axes: str) -> int:
    num = 1
    for axis in filter(None, axes.split(",")):
        num *= int(axis)
    return num


def _bytes_per_element(kind: str) -> int:
    bits = re.search(r"\d+", kind)
    return 1 if bits is None else max(1, int(bits[0]) // 8)
