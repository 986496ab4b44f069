"""What every long run needs: errors, checkpoints, logs, progress. Knows nothing of bodies."""
