"""One recording of one action: the style its actor keeps, drawn once, and smooth change over time."""

import numpy as np


class Take:
    """Style numbers drawn in a fixed order from a seed, so that every moment of a take has the same style.

    time: seconds into the take.
    """

    def __init__(self, seed: tuple[int, ...], time: float):
        self.time = time
        self._random = np.random.default_rng(seed)

    def between(self, low: float, high: float) -> float:
        """Draw a style number, uniform."""
        return float(self._random.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """Draw a yes or no."""
        return bool(self._random.random() < probability)

    def pick(self, *options):
        """Draw one of the options."""
        return options[int(self._random.integers(len(options)))]

    def drift(self, amplitude: float, period: float = 4.0) -> float:
        """Return a smooth wandering value in about [-amplitude, amplitude] at this moment."""
        p1, p2, f1, f2 = self._random.uniform([0.8, 0.35, 0, 0], [1.3, 0.6, 1, 1])
        turn = 2 * np.pi
        slow = np.sin(turn * (self.time / (p1 * period) + f1))
        fast = np.sin(turn * (self.time / (p2 * period) + f2))
        return float(amplitude * (0.68 * slow + 0.32 * fast))

    def cycle(self, period: float) -> float:
        """Return the phase, 0 to 1, of a repeated motion whose period is near `period` seconds."""
        scale, start = self._random.uniform([0.8, 0.0], [1.25, 1.0])
        return float((self.time / (scale * period) + start) % 1.0)

    def hold(self, period: float, moving: float = 0.35) -> float:
        """Return a value in 0..1 that rests at 0, moves smoothly to 1, rests there and comes back, over and over.

        moving: share of the period spent on the way, both ways together.
        """
        phase = self.cycle(period)
        ramp = moving / 2
        rise = np.clip((phase - 0.0) / ramp, 0, 1) - np.clip((phase - 0.5) / ramp, 0, 1)
        return float(rise * rise * (3 - 2 * rise))
