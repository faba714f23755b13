"""Forecasting: the next steps of a series, as a distribution."""
