"""What a model did with one input, step by step: gates, states, and the answer as it evolves."""
