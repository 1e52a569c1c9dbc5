"""A program in words, and what follows from its list of instructions."""

from __future__ import annotations

from .file import ADD, Instruction, Program, Run, Value
from .graph import ACTS

SEES_ALL = ("mean", "instance_norm")


def macs(each: Instruction, values: tuple[Value, ...], constants: tuple) -> float:
    """Multiplications for each pixel of the picture."""
    if each.op not in ("conv", "conv_lstm"):
        return 0.0
    weights = constants[each.constants[0]].numel()
    down = values[each.operands[0]].down if each.attributes[4] else values[each.output].down
    down += 1 if each.op == "conv" and each.attributes[5] else 0
    return weights / 4**down


def listing(program: Program) -> str:
    lines = []
    for number, run in enumerate(program.runs):
        total = sum(macs(each, run.values, program.constants) for each in run.instructions)
        title = ("from zero states", "from given states")[number] if len(program.runs) > 1 else "program"
        lines.append(f"{title}: {len(run.instructions)} instructions, {total / 1000:.1f} kMAC/pixel")
        ends = {mark.after: place for place, mark in enumerate(run.marks, 1)}
        for place, each in enumerate(run.instructions, 1):
            lines.append(_line(each, run, program))
            if place in ends and len(run.marks) > 1:
                lines.append(f"    -- stage {ends[place]}")
    weights = sum(each.numel() for each in program.constants)
    lines.append(f"{weights} constants, {len(program.data)} bytes")
    return "\n".join(lines)


def _line(each: Instruction, run: Run, program: Program) -> str:
    def name(value: int | None) -> str:
        if value is None:
            return "-"
        kind = run.values[value]
        return f"%{value}[{kind.channels}{'' if kind.kind else f'/{1 << kind.down}'}{'f' if kind.storage else ''}]"

    outputs = name(each.output) + ("" if each.second is None else f", {name(each.second)}")
    words = each.op + "".join(f" {ACTS[act]}" for act in (each.act1,) if act)
    if each.flags & ADD:
        words += " + add" + (f" {ACTS[each.act2]}" if each.act2 else "")
    cost = macs(each, run.values, program.constants) / 1000
    only = f", only for stage {each.only_for_mark}" if each.only_for_mark else ""
    shape = " ".join(map(str, each.attributes)).removesuffix(" 0")
    return f"  {outputs} = {words} ({shape}) {' '.join(map(name, each.operands))}   {cost:.2f} kMAC{only}   {each.text}"


def reach(program: Program) -> int | None:
    """How many pixels away a pixel of the picture can still change one of the result; None: the whole picture."""
    run = program.runs[0]
    far: dict[int, int] = {0: 0}
    for each in run.instructions:
        if each.op in SEES_ALL:
            return None
        largest = max((far[one] for one in each.operands if one is not None), default=0)
        first = run.values[each.operands[0]]
        step = 1 << min(first.down, run.values[each.output].down)
        here = 0
        if each.op == "conv":
            kernel, _, dilation, *_ = each.attributes
            here = max(dilation * (kernel - 1) // 2, kernel - 1 if kernel % 2 == 0 else 0) * step
        elif each.op == "conv_lstm":
            here = each.attributes[0] // 2 * step
        elif each.op in ("pool", "shuffle", "unshuffle"):
            here = (each.attributes[0 if each.op != "pool" else 1] - 1) * step
        far[each.output] = largest + here
        if each.second is not None:
            far[each.second] = far[each.output]
    return far[run.marks[-1].picture]
