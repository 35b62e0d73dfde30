"""Whether memory grows, from samples of it over time; loads nothing that would be in the samples itself."""

import statistics

from lines import MeasureError

WARMUP_SHARE = 0.2  # of the samples: imports, the model, the first shard


def growth(sizes: list[float]) -> float:
    """Return by what share the median of the last half of `sizes` exceeds that of the first, warm-up left out."""
    steady = sizes[int(len(sizes) * WARMUP_SHARE) :]
    half = len(steady) // 2
    if half < 4:
        raise MeasureError(f"found {len(sizes)} samples of a stage, too few to see whether memory grows; use more rows")
    return statistics.median(steady[half:]) / statistics.median(steady[:half]) - 1
