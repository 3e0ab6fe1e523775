"""What Avalanche's metrics, and those of the stability gap's authors, say of one run.

A made-up run of four tasks, evaluated on 50 examples a task after every update, goes as labels and
predictions through the metric classes themselves: Avalanche's plugin metrics of forgetting and of
backward and forward transfer, evaluated before the first task and after each; and the authors' metrics
of continual evaluation (min-ACC, WC-ACC, windowed forgetting and plasticity, LCA), on the tasks seen so
far. `tests/methods/forgetting/test_metrics.py` holds ours against the file that this writes.

    pip install avalanche-lib==0.6.0  # in an environment of its own
    git clone https://github.com/Mattdl/ContinualEvaluation
    python benchmarks/continual_metrics_against_avalanche.py --authors ContinualEvaluation \
        --json tests/methods/forgetting/avalanche.json
"""

import argparse
import importlib.metadata
import importlib.util
import json
import sys
import types
from pathlib import Path
from unittest import mock

import numpy as np

try:
    import torch
    from avalanche.evaluation.metrics import accuracy, loss
    from avalanche.evaluation.metrics.forgetting_bwt import (
        ExperienceBWT,
        ExperienceForgetting,
        StreamBWT,
        StreamForgetting,
    )
    from avalanche.evaluation.metrics.forward_transfer import (
        ExperienceForwardTransfer,
        StreamForwardTransfer,
    )
except ImportError as error:
    sys.exit(f"this comparison needs Avalanche ({error}): run `pip install avalanche-lib==0.6.0`")

EXAMPLES, TASKS, UPDATES = 50, 4, 15


def made_up(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How many of the examples are right [step, task], and the task of each step [step]."""
    rng = np.random.default_rng(seed)
    learning = np.r_[0, np.repeat(np.arange(TASKS), UPDATES)]
    right = np.zeros((len(learning), TASKS), int)
    level = np.full(TASKS, 0.15)
    for step, task in enumerate(learning):
        into = (step - 1) % UPDATES
        if step:
            level[task] += 0.25 * (0.95 - level[task])
            others = np.arange(TASKS) < task
            level[others] += 0.2 * (0.8 - level[others]) - (0.35 if into in (0, 1) else 0.0)
        right[step] = rng.binomial(EXAMPLES, np.clip(level, 0.02, 0.98))
    return right, learning


def predictions(right: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels, and predictions of which so many are right."""
    labels = torch.zeros(EXAMPLES, dtype=torch.long)
    return labels, (torch.arange(EXAMPLES) >= right).long()


def avalanche(right: np.ndarray, learning: np.ndarray) -> dict[str, object]:
    """Avalanche's plugin metrics at the end of the run."""
    metrics = {
        "forgetting": ExperienceForgetting(),
        "bwt": ExperienceBWT(),
        "fwt": ExperienceForwardTransfer(),
        "stream_forgetting": StreamForgetting(),
        "stream_bwt": StreamBWT(),
        "stream_fwt": StreamForwardTransfer(),
    }
    stream = types.SimpleNamespace(name="test")
    experiences = [
        types.SimpleNamespace(
            current_experience=i, origin_stream=stream, task_label=0, task_labels=[0]
        )
        for i in range(TASKS)
    ]
    strategy = types.SimpleNamespace(
        eval_every=0, is_eval=True, clock=types.SimpleNamespace(train_iterations=0)
    )

    def tell(hook: str) -> None:
        for metric in metrics.values():
            getattr(metric, hook)(strategy)

    def evaluate(step: int) -> None:
        tell("before_eval")
        for task, strategy.experience in enumerate(experiences):
            strategy.mb_y, strategy.mb_output = predictions(right[step, task])
            tell("before_eval_exp")
            tell("after_eval_iteration")
            tell("after_eval_exp")
        tell("after_eval")

    evaluate(0)
    for task in range(TASKS):
        strategy.experience = experiences[task]
        tell("before_training_exp")
        evaluate(int(np.flatnonzero(learning == task)[-1]))
    return {name: metric.result() for name, metric in metrics.items()}


def authors(folder: Path, right: np.ndarray, learning: np.ndarray) -> dict[str, object]:
    """The authors' metrics at the end of the run, and WC-ACC after every update."""
    needs = types.ModuleType("src.utils")
    needs.get_grad_normL2 = None
    sys.modules |= {"src": types.ModuleType("src"), "src.utils": needs}
    path = folder / "src" / "eval" / "continual_eval_metrics.py"
    spec = importlib.util.spec_from_file_location("continual_eval_metrics", path)
    theirs = importlib.util.module_from_spec(spec)
    # They were written for Avalanche 0.1, whose Accuracy and Loss are told the task.
    with (
        mock.patch.object(accuracy, "Accuracy", accuracy.TaskAwareAccuracy),
        mock.patch.object(loss, "Loss", loss.LossMetric, create=True),
    ):
        spec.loader.exec_module(theirs)

    lowest = theirs.TaskTrackingMINAccuracyPluginMetric()
    worst = theirs.WCACCPluginMetric(lowest)
    area = theirs.TrackingLCAPluginMetric(beta=10)
    windows = {
        f"{name}_{width}": of(width)
        for name, of in {
            "windowed_forgetting": theirs.WindowedForgettingPluginMetric,
            "windowed_plasticity": theirs.WindowedPlasticityPluginMetric,
        }.items()
        for width in (2, 10, 100)
    }
    metrics = [lowest, worst, area, *windows.values()]
    collector = theirs.TrackingCollector()
    strategy = types.SimpleNamespace(tracking_collector=collector, clock=types.SimpleNamespace())
    curve = []
    for step, current in enumerate(learning.tolist()):
        strategy.clock.train_exp_counter = current
        for metric in metrics:
            metric.before_tracking(strategy)
        for task in range(current + 1):
            collector.current_tracking_task = task
            collector.y, collector.preds_batch = predictions(right[step, task])
            for hook in (
                "before_tracking_step",
                "before_tracking_batch",
                "after_tracking_batch",
                "after_tracking_step",
            ):
                for metric in metrics:
                    getattr(metric, hook)(strategy)
        curve.append(worst.result()[0])
    return {
        "min_accuracy": lowest.result(),
        "worst_case_curve": curve,
        "learning_curve_area": area.lca_tasks,
        **{name: dict(metric.result()) for name, metric in windows.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--authors", type=Path, required=True, help="a clone of ContinualEvaluation"
    )
    parser.add_argument("--json", type=Path, help="write the run and the results to this file")
    settings = parser.parse_args()
    runs = []
    for seed in range(3):
        right, learning = made_up(seed)
        runs.append(
            {
                "right": right.tolist(),
                "learning": learning.tolist(),
                "avalanche": avalanche(right, learning),
                "authors": authors(settings.authors, right, learning),
            }
        )
        print({k: v for k, v in runs[-1]["avalanche"].items() if k.startswith("stream")})
        print({k: v for k, v in runs[-1]["authors"].items() if k != "worst_case_curve"})
    if settings.json is not None:
        version = importlib.metadata.version("avalanche-lib")
        found = {"avalanche-lib": version, "examples": EXAMPLES, "runs": runs}
        settings.json.write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
