"""Federated optimisation in which clients finish late, each at its own pace."""
