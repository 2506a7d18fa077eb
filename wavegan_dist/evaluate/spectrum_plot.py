"""The plot of an evaluation's power spectra."""

from pathlib import Path
from typing import Any

from wavegan_dist.files import atomic_file


def plot_spectrum(table: dict[str, Any], path: Path) -> None:
    """Plot the power of real and generated images over the frequency; write the plot as a PNG file, atomically.

    Args:
        table: the table `spectrum` of a result: lists `frequency` (Nyquist = 1), `real_db` and `generated_db`.
        path: the PNG file to write; an existing file is replaced.

    Raises:
        OSError: the file cannot be written.
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure  # takes about a second to import

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="frequency / Nyquist", ylabel="power, dB (1 squared gray level = 0)")
    axes.plot(table["frequency"], table["real_db"], label="real")
    axes.plot(table["frequency"], table["generated_db"], label="generated")
    axes.axvspan(0.5, max(table["frequency"]), alpha=0.08, label="top half")
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_file(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
