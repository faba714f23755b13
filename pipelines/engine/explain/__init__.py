"""What a model does with one input, step by step: gates, states and the evolving answer."""
