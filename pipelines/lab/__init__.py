"""The chapter as experiments that anyone can run again: claim, equation, measurement, verdict."""
