"""Evaluation that can be trusted: protocols, metrics, scoring, breakdowns, reports."""
