"""Ray casting and plots, in NumPy: they need neither GL nor a display."""
