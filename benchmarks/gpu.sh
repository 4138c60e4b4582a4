#!/usr/bin/env bash
# ResNet-50 in bfloat16 at 224 pixels and ResNet-18 at 32 pixels on resident data, ours beside PyTorch on the same GPU,
# with MFU and our ten longest kernels: in about six minutes on one H100.
#
#     [PYTHON=python3] [TORCH_PYTHON=python3] [RESULTS=docs/benchmarks] bash benchmarks/gpu.sh
#
# PYTHON has jax with CUDA, flax and optax; TORCH_PYTHON torch, torchvision and timm. Neither needs TFDS or grain.
# To try it without a GPU: BATCH=2 SIZE=64 RESIDENT_BATCH=8 DTYPE=float32 ROUNDS=1 SECONDS_A_TURN=0.1.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

# Both sides live on one card: neither may take its memory in advance.
export XLA_PYTHON_CLIENT_PREALLOCATE=false

common=(
  --torch-python "${TORCH_PYTHON:-$python}" --dtype "${DTYPE:-bfloat16}" --rounds "${ROUNDS:-5}"
  --seconds "${SECONDS_A_TURN:-1}" --limit "${LIMIT:-150}" --out "${RESULTS:-docs/benchmarks}" --profile
)
status=0
"$python" -m benchmarks.train_step --networks resnet50 --batch "${BATCH:-256}" --size "${SIZE:-224}" \
  --contenders ours,compile --name gpu_resnet50 "${common[@]}" || status=$?
"$python" -m benchmarks.train_step --networks resnet18 --batch "${RESIDENT_BATCH:-512}" --size 32 --classes 10 \
  --stem cifar --resident --contenders ours,torch,compile,graphs --name gpu_resnet18 "${common[@]}" || status=$?
exit "$status"
