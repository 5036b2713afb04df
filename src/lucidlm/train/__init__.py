"""Pretraining and fine-tuning: one loop, what it optimises, how it is scheduled, saved, resumed and stopped."""
