"""Explanations of predictions by the columns: Shapley values."""
