"""The lab: runs studies, judges claims with honest intervals, keeps what was found."""

from latebloom.lab.application import Application, Applied, apply
from latebloom.lab.study import Budget, Claim, Figure, Paper, Study
from latebloom.lab.verdict import Verdict, judge

__all__ = [
    "Application",
    "Applied",
    "Budget",
    "Claim",
    "Figure",
    "Paper",
    "Study",
    "Verdict",
    "apply",
    "judge",
]
