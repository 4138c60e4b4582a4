"""NASNet and PNASNet-5 in the state dicts of timm and of Cadene's pretrained-models."""

from cnn_jax.weights.names.table import Table


def table(stem: str, cells: dict[str, str], halved: tuple[str, ...], path: str) -> Table:
    """From the cells' names, and those whose earlier input is halved, below `path` there."""
    rows = [("stem/conv", f"{stem}.conv"), ("stem/norm", f"{stem}.bn"), ("head", "last_linear")]
    for ours, theirs in {"stem_cell1": "cell_stem_0", "stem_cell2": "cell_stem_1", **cells}.items():
        rows += [
            (f"{ours}/current/conv", f"{theirs}.conv_1x1.conv"),
            (f"{ours}/current/norm", f"{theirs}.conv_1x1.bn"),
            (f"{ours}/previous/conv", f"{theirs}.conv_prev_1x1.conv"),
            (f"{ours}/previous/even", f"{theirs}.{path}path_1.conv"),
            (f"{ours}/previous/odd", f"{theirs}.{path}path_2.conv"),
            (f"{ours}/previous/norm", f"{theirs}.{f'{path}final_path_bn' if ours in halved else 'conv_prev_1x1.bn'}"),
            (rf"{ours}/sum(\d)_(left|right)/norm(\d)", rf"{theirs}.comb_iter_<1>_\2.bn_sep_\3"),
            (rf"{ours}/sum(\d)_(left|right)/(\w+)(\d)", rf"{theirs}.comb_iter_<1>_\2.separable_\4.\3_conv2d"),
            (rf"{ours}/sum(\d)_right_conv", rf"{theirs}.comb_iter_<1>_right.conv"),
            (rf"{ours}/sum(\d)_right_norm", rf"{theirs}.comb_iter_<1>_right.bn"),
        ]
    return tuple(rows)


# Six numbers a stage in NASNet, of which the mobile one leaves the last two free.
NASNET: Table = table(
    "conv0",
    {f"stage{i}_cell{j}": f"cell_{6 * i + j - 7}" for i in (1, 2, 3) for j in range(1, 7)}
    | {"stage2_reduce": "reduction_cell_0", "stage3_reduce": "reduction_cell_1"},
    ("stem_cell2", "stage1_cell1", "stage2_cell1", "stage3_cell1"),
    "",
)
PNASNET: Table = table(
    "conv_0",
    {f"stage{i}_cell{j}": f"cell_{4 * i + j - 5}" for i in (1, 2, 3) for j in range(1, 5)},
    ("stem_cell2", "stage1_cell1", "stage2_cell2", "stage3_cell2"),
    "conv_prev_1x1.",
)

TABLES: dict[str, Table] = {"*.nasneta*": NASNET, "timm.pnasnet5large": PNASNET}
