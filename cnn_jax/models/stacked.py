"""Variables of networks that scan over equal blocks (`scan=True`), to and from those of the same network without."""

import re
from collections import defaultdict
from collections.abc import Mapping

import jax
import jax.numpy as jnp

BLOCK, REST = re.compile(r"(stage\d+)_block(\d+)"), "_rest"


def stack_blocks(variables: Mapping) -> dict:
    """Variables of a network -> of the same with `scan=True`; gradients likewise.

    In each collection, what stands under stage1_block2, stage1_block3, ... goes to stage1_rest, with
    a first axis of blocks, and so in the other stages. The rest stays as it is; exactly undone by unstack_blocks.
    """
    return {kind: _stacked(values) for kind, values in variables.items()}


def unstack_blocks(variables: Mapping) -> dict:
    """Variables of a network with `scan=True` -> of the same without, which weights and other functions know."""
    return {kind: _unstacked(values) for kind, values in variables.items()}


def _stacked(values: Mapping) -> dict:
    found, stages = {}, defaultdict(dict)
    for name, value in values.items():
        block = BLOCK.fullmatch(name)
        if block and int(block[2]) > 1:
            stages[block[1]][int(block[2])] = value
        else:
            found[name] = value
    for stage, blocks in stages.items():
        inner = [blocks[number] for number in sorted(blocks)]
        found[stage + REST] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *inner)
    return found


def _unstacked(values: Mapping) -> dict:
    found = {}
    for name, value in values.items():
        stage = name.removesuffix(REST)
        if stage == name:
            found[name] = value
            continue
        count = len(jax.tree.leaves(value)[0])
        found |= {f"{stage}_block{i + 2}": jax.tree.map(lambda leaf, i=i: leaf[i], value) for i in range(count)}
    return found
