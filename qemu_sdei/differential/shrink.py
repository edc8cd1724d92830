"""Makes a sequence that shows a fault as short as it can be: what can be left out, is (delta debugging)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from qemu_sdei.differential.sequence import COMPLETE, Op, Operand, Program, Script, Step, cpus_of, mapped

Shows = Callable[[Script], bool]
"""Whether a sequence still shows it. May raise, which ends the shrinking."""


def shrink(script: Script, shows: Shows, most: int = 200) -> Script:
    """The shortest one found that still `shows`, after at most `most` trials; `script` itself is taken to show it."""
    tried = {tidy(script)}
    best = tidy(script)
    progress = True
    while progress and most > 0:
        progress = False
        for candidate in _smaller(best):
            if candidate in tried or not candidate.steps:
                continue
            tried.add(candidate)
            most -= 1
            if shows(candidate):
                best, progress = candidate, True
                break
            if most <= 0:
                break
    return best


def tidy(script: Script) -> Script:
    """The same with its programs numbered in the order of their use, and without those that nobody uses."""
    order: list[int] = []
    todo = [op for step in script.steps for op in [step.op]]
    while todo:
        for operand in todo.pop(0).operands:
            if operand.kind == "P" and operand.value < len(script.programs) and operand.value not in order:
                order.append(operand.value)
                todo += script.programs[operand.value].ops
    numbers = {old: new for new, old in enumerate(order)}

    def op(one: Op) -> Op:
        changed = tuple(replace(o, value=numbers.get(o.value, o.value)) if o.kind == "P" else o for o in one.operands)
        return replace(one, operands=changed)

    return Script(
        tuple(replace(step, op=op(step.op)) for step in script.steps),
        tuple(replace(program, ops=tuple(map(op, program.ops))) for program in (script.programs[old] for old in order)),
    )


def _smaller(script: Script) -> Iterator[Script]:
    """Candidates, those first that leave out most."""
    size = len(script.steps) // 2
    while size:
        for start in range(0, len(script.steps), size):
            yield tidy(replace(script, steps=script.steps[:start] + script.steps[start + size :]))
        size //= 2
    for number, program in enumerate(script.programs):
        if len(program.ops) > 1:
            yield _with(script, number, replace(program, ops=()))
        for at in range(len(program.ops)):
            yield _with(script, number, replace(program, ops=program.ops[:at] + program.ops[at + 1 :]))
        if program.ending != Op(COMPLETE):
            yield _with(script, number, replace(program, ending=Op(COMPLETE)))
    yield from _alone(script)
    yield from _fewer_cpus(script)
    yield from _plainer(script)


def _alone(script: Script) -> Iterator[Script]:
    """What a handler does may show it outside of one."""
    if len(script.ops()) > 1:
        for op in dict.fromkeys(op for program in script.programs for op in program.ops):
            yield tidy(replace(script, steps=(Step(script.steps[0].cpu, op),)))


def _with(script: Script, number: int, program: Program) -> Script:
    programs = tuple(program if n == number else old for n, old in enumerate(script.programs))
    return tidy(replace(script, programs=programs))


def _fewer_cpus(script: Script) -> Iterator[Script]:
    """Two CPUs become one, or others: low numbers are easier to read."""
    cpus = cpus_of(script)
    for cpu in reversed(cpus):
        for other in range(cpu):
            candidate = tidy(mapped(script, {cpu: other}))
            if other or all(step.op.what != "o" for step in candidate.steps if step.cpu == 0):
                yield candidate


def _plainer(script: Script) -> Iterator[Script]:
    """Arguments that are left out, from the last one on, and numbers that become 0."""
    for at, step in enumerate(script.steps):
        for op in _plainer_op(step.op):
            steps = (*script.steps[:at], replace(step, op=op), *script.steps[at + 1 :])
            yield tidy(replace(script, steps=steps))
    yield from _other_programs(script)
    for number, program in enumerate(script.programs):
        for at, own in enumerate(program.ops):
            for op in _plainer_op(own):
                yield _with(script, number, replace(program, ops=(*program.ops[:at], op, *program.ops[at + 1 :])))


def _other_programs(script: Script) -> Iterator[Script]:
    """A handler that does nothing but register the one that counts is not needed."""
    size = len(script.ops())
    for at, step in enumerate(script.steps):
        for place, operand in enumerate(step.op.operands):
            for number in range(len(script.programs)) if operand.kind == "P" else ():
                other = replace(operand, value=number)
                op = replace(step.op, operands=(*step.op.operands[:place], other, *step.op.operands[place + 1 :]))
                steps = (*script.steps[:at], replace(step, op=op), *script.steps[at + 1 :])
                candidate = tidy(replace(script, steps=steps))
                if len(candidate.ops()) < size:
                    yield candidate


def _plainer_op(op: Op) -> Iterator[Op]:
    if len(op.operands) > 4:
        yield replace(op, operands=op.operands[:4])
    for at, operand in enumerate(op.operands[1:], 1):
        if operand.kind == "L" and operand.value:
            yield replace(op, operands=(*op.operands[:at], Operand("L", 0), *op.operands[at + 1 :]))
