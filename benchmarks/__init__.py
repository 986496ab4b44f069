"""What it costs and what it reaches: rates beside matmul rates, energies beside the lowest known."""
