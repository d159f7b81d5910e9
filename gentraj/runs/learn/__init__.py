"""How runs learn: training, fine-tuning, steering, distillation, and data that models add."""
