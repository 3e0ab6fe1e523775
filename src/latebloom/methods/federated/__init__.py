"""Federated optimisation in which clients finish late, each at its own pace."""

from latebloom.methods.federated.planning import ClientLog, Plan, client_log, plan

__all__ = ["ClientLog", "Plan", "client_log", "plan"]
