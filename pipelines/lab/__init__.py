"""The chapter as repeatable experiments: claim, equation, measurement, verdict."""
