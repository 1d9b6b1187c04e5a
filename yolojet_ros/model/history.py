"""The course of a training: a table beside the weights, a plot of it, and the best point."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Dict, List, Sequence

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import atomic_path


class History:
    """
    One row for every measurement, kept in a CSV file.

    :param output: the weights; the table is OUTPUT's name with _results.csv, the plot with
        _results.png, the best weights with _best.pt.
    :param parts: names of the loss's parts.
    """

    def __init__(self, output: Path, parts: Sequence[str]) -> None:
        """Start an empty table; nothing is written yet."""
        output = Path(output)
        self.parts = tuple(parts)
        self.table = output.with_name(f'{output.stem}_results.csv')
        self.plot_file = output.with_name(f'{output.stem}_results.png')
        self.best_file = output.with_name(f'{output.stem}_best.pt')
        self._columns = ['step', 'minutes', 'learning_rate', *(f'{p}_loss' for p in parts),
                         'mAP50', 'mAP50-95']
        self._rows: List[Dict[str, float]] = []

    def resume(self, step: int) -> None:
        """
        Take up the rows of an unfinished run up to `step`.

        :raises UserError: if the table is not one of such a run.
        """
        if not self.table.is_file():
            return
        try:
            with open(str(self.table), newline='', encoding='utf-8') as file:
                rows = [{key: float(value) for key, value in row.items()}
                        for row in csv.DictReader(file)]
            if any(list(row) != self._columns for row in rows):
                raise ValueError('columns')
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f'{self.table} is not the table of this training; move it away to go '
                            'on without it') from error
        self._rows = [row for row in rows if row['step'] <= step]

    def add(
        self, step: int, minutes: float, rate: float, parts: Sequence[float], map50: float,
        map_: float,
    ) -> bool:
        """Write another row; return whether no earlier one had a better mAP50-95."""
        best = max((r['mAP50-95'] for r in self._rows if not math.isnan(r['mAP50-95'])),
                   default=-1.0)
        values = (step, round(minutes, 3), rate, *parts, map50, map_)
        self._rows = [row for row in self._rows if row['step'] < step]
        self._rows.append(dict(zip(self._columns, values)))
        text = io.StringIO(newline='')
        writer = csv.DictWriter(text, self._columns, lineterminator='\n')
        writer.writeheader()
        writer.writerows({key: f'{value:.6g}' for key, value in row.items()}
                         for row in self._rows)
        with atomic_path(self.table) as temporary:
            temporary.write_text(text.getvalue(), encoding='utf-8')
        return not map_ < best

    def plot(self) -> bool:
        """Draw losses and mAP over the steps; return False where matplotlib is missing."""
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError:
            return False
        figure = Figure(figsize=(10, 4), constrained_layout=True)
        canvas = FigureCanvasAgg(figure)
        losses, accuracy = figure.subplots(1, 2)
        steps = [row['step'] for row in self._rows]
        for column in self._columns[3:]:
            axes = accuracy if column.startswith('mAP') else losses
            axes.plot(steps, [row[column] for row in self._rows], marker='.', label=column)
        for axes, title in ((losses, 'losses of the last batch'), (accuracy, 'held-out images')):
            axes.set(title=title, xlabel='step')
            axes.grid(alpha=0.3)
            axes.legend()
        with atomic_path(self.plot_file) as temporary:
            with open(str(temporary), 'wb') as file:
                canvas.print_png(file)
        return True
