"""Scoring against 3D truth: what the loop reports, and never what it trains, stops or selects on."""
