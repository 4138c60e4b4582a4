"""Training: state, step, optimiser, loop, checkpoints, logs. A model is seen only as `apply`."""
