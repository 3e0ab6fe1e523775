"""How many spoken digits does a linear classifier tell by spike counts a channel, without any timing?

Logistic regression on standardised counts, its strength chosen on the validation voices, trained on all training words of
the data set of the study of spiking delays, which reads what this prints. Run: python benchmarks/spoken_digits_by_counts.py
"""

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from latebloom.data.spoken_digits import load_spoken_digits


def main() -> None:
    digits = load_spoken_digits()
    counts = {part: x.sum(axis=1, dtype=float) for part, x in digits.x.items()}
    best, found = -1.0, None
    for strength in (0.001, 0.01, 0.1, 1.0, 10.0, 100.0):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000))
        model.fit(counts["train"], digits.y["train"])
        score = model.score(counts["valid"], digits.y["valid"])
        print(f"C {strength:g}: validation {score:.3f}")
        if score > best:
            best, found = score, model
    for part in ("test", "people"):
        print(f"{part}: {found.score(counts[part], digits.y[part]):.3f}")


if __name__ == "__main__":
    main()
