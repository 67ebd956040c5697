"""Search: configuration, space, models, losses, trials, scheduling, selection and prediction."""
