#!/usr/bin/env bash
# The rows of the ledger that a GPU is for, in pieces: call it again until it says "0 runs to make". A run that is
# stopped after its nine minutes saves itself and goes on with the next call.
#
#     FASHION=FILES [PYTHON=python3] [SECONDS_A_CALL=530] bash benchmarks/ledger_gpu.sh [--row NAME ...]
#
# FILES is the folder with Fashion-MNIST's four files as published, train-images-idx3-ubyte.gz and so on. PYTHON has jax
# with CUDA, flax, optax and orbax; neither TFDS nor grain is needed.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
set=runs/ledger/fashion_mnist.npz

mkdir -p runs/ledger
[ -f "$set" ] || "$python" - "$FASHION" "$set" <<'END'
import sys
from pathlib import Path
import numpy as np
from cnn_jax.data.raw_files import read_idx

folder, arrays = Path(sys.argv[1]), {}
for split, name in (("train", "train"), ("test", "t10k")):
    arrays[f"x_{split}"] = read_idx(folder / f"{name}-images-idx3-ubyte.gz")
    arrays[f"y_{split}"] = read_idx(folder / f"{name}-labels-idx1-ubyte.gz")
np.savez(sys.argv[2], **arrays)
END

# timeout signals the whole group: train.py saves and leaves.
timeout "${SECONDS_A_CALL:-530}" "$python" -m benchmarks.ledger --gpu --jobs 0 --dataset "$set" "$@" || {
  code=$?
  [ "$code" = 124 ] && echo "stopped after ${SECONDS_A_CALL:-530} s; call again to go on"
  exit "$code"
}
