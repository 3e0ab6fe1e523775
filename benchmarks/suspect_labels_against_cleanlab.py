"""Does early learning find wrong labels better than cleanlab, and in what time?

scikit-learn digits and MNIST-5k with labels made wrong: 20 % symmetric, 40 % symmetric, 40 % within
pairs. AUROC of the ranking (wrong labels first), and seconds, of

- `ours`: `find_label_errors`, the targets of two networks trained once on all labels;
- `cleanlab`: its three quality scores on out-of-sample probabilities (five folds) of scikit-learn's
  MLPClassifier with the same hidden layer, with early stopping and without, of LogisticRegression and
  of a RandomForestClassifier;
- the same three scores on the very targets of `ours`, and the share of suspects that are wrong
  (precision) and of wrong labels that are suspects (recall), ours by the largest target, cleanlab's by
  `find_label_issues`.

    pip install cleanlab==2.9.0  # beside latebloom
    python benchmarks/suspect_labels_against_cleanlab.py --json suspect_labels.json
"""

import argparse
import json
import os
import sys
import time
import warnings

cores = len(os.sched_getaffinity(0))
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={cores}")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_score, recall_score, roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.neural_network import MLPClassifier

from latebloom.data import load
from latebloom.methods.noisy_labels import MNIST_PAIRS, LabelNoise, find_label_errors

try:
    import cleanlab
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores
except ImportError:
    sys.exit(
        "this comparison needs cleanlab: run `pip install cleanlab==2.9.0` in this environment"
    )

SCORES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
NOISES = {
    "symmetric 20 %": LabelNoise(0.2),
    "symmetric 40 %": LabelNoise(0.4),
    "pairs 40 %": LabelNoise(0.4, pairs=MNIST_PAIRS),
}
CLASSIFIERS = {
    "MLP": MLPClassifier((256,), max_iter=50, random_state=0),
    "MLP, early stopping": MLPClassifier((256,), max_iter=50, early_stopping=True, random_state=0),
    "logistic regression": LogisticRegression(max_iter=200),
    "random forest": RandomForestClassifier(300, n_jobs=-1, random_state=0),
}


def judged(labels: np.ndarray, p: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """AUROC of cleanlab's scores on probabilities, and precision and recall of its issues."""
    scores = {
        m: get_label_quality_scores(labels, p, method=m, adjust_pred_probs=False) for m in SCORES
    }
    issues = find_label_issues(labels, p, n_jobs=1)
    return {
        **{f"AUROC, {m}": roc_auc_score(wrong, -s) for m, s in scores.items()},
        "precision": precision_score(wrong, issues, zero_division=0),
        "recall": recall_score(wrong, issues),
    }


def contest(data: str, noise: LabelNoise, seed: int) -> list[dict]:
    images = load(data)
    x = images.x_train.reshape(len(images.x_train), -1).astype(np.float32) / 255
    true = images.y_train
    labels = np.asarray(noise(jax.random.key(seed), jnp.asarray(true, jnp.int32)))
    wrong, rows = labels != true, []
    start = time.perf_counter()
    found = find_label_errors(images.x_train, labels, progress=False)
    seconds = time.perf_counter() - start
    table = found.table.sort_values("id")
    own = {"AUROC": roc_auc_score(wrong, -table["t_label"]),
           "precision": precision_score(wrong, table["suspect"]),
           "recall": recall_score(wrong, table["suspect"])}  # fmt: skip
    rows.append({"by": "ours", "seconds": seconds, **own})
    rows.append({"by": "cleanlab on our targets", **judged(labels, found.targets, wrong)})
    for name, classifier in CLASSIFIERS.items():
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 50 epochs are meant
            p = cross_val_predict(classifier, x, labels, cv=5, method="predict_proba")
        judgement = judged(labels, p, wrong)
        rows.append(
            {"by": f"cleanlab, {name}", "seconds": time.perf_counter() - start, **judgement}
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", nargs="+", default=["digits", "mnist-5k"])
    options = parser.parse_args()

    written = []
    for data in options.data:
        for name, noise in NOISES.items():
            runs = [contest(data, noise, seed) for seed in range(options.seeds)]
            for places in zip(*runs, strict=True):
                mean = {k: float(np.mean([r[k] for r in places])) for k in places[0] if k != "by"}
                written.append({"data": data, "noise": name, "by": places[0]["by"], **mean})
    table = Table(title=f"wrong labels found, mean of {options.seeds} seeds, {cores} cores")
    for column in ("data", "noise", "by", "AUROC", "precision", "recall", "seconds"):
        table.add_column(column, justify="left" if column in ("data", "noise", "by") else "right")
    for row in written:
        best = row.get("AUROC", max(row.get(f"AUROC, {m}", 0) for m in SCORES))
        took = f"{row['seconds']:.1f}" if "seconds" in row else ""
        table.add_row(row["data"], row["noise"], row["by"], f"{best:.3f}", f"{row['precision']:.2f}",
                      f"{row['recall']:.2f}", took)  # fmt: skip
    Console().print(table)
    if options.json:
        versions = {"cleanlab": cleanlab.__version__, "jax": jax.__version__, "cores": cores}
        with open(options.json, "w") as file:
            json.dump({"rows": written, **versions}, file, indent=1)


if __name__ == "__main__":
    main()
