"""Fine-tuning: one objective for each kind of task, and which weights it moves."""
