"""The reproduction ledger: what the papers claim, run again at a size that a laptop has, with what came out.

    uv run python -m benchmarks.ledger --data-dir DIR                  what is missing in results/, and the page
    uv run python -m benchmarks.ledger --data-dir DIR --row relu-tanh  one claim
    uv run python -m benchmarks.ledger --row relu-tanh --check         made again beside results/, digests compared

networks.py has what the zoo lacks, runs.py a recipe for each run, claims.py the rows; results.py trains, page.py writes
docs/reproduction.md.
"""
