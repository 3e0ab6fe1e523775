"""The lab: runs studies, judges claims with honest intervals, keeps what was found."""

from latebloom.lab.study import Budget, Claim, Figure, Paper, Study
from latebloom.lab.verdict import Verdict, judge

__all__ = ["Budget", "Claim", "Figure", "Paper", "Study", "Verdict", "judge"]
