"""Judge a model: its answers, figures with intervals, baselines, comparisons, pages."""
