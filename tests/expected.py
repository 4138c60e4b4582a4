"""A row of outside figures for every registered model; a model without one fails the suite.

Sources: LeCun 1998, sec. II.B (parameters, fixed weights, connections) for `lenet5`; for
`lenet5_modern` the count that follows from its layers by hand, 156 + 2,416 + 48,120 + 10,164 + 850.
"""

EXPECTED = {
    "lenet5": {"params": 60_000, "fixed": 840, "input_size": (32, 32, 1), "classes": 10},
    "lenet5_modern": {"params": 61_706, "fixed": 0, "input_size": (32, 32, 1), "classes": 10},
}
