"""Human3.6M's official files."""
