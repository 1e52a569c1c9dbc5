"""What runs: modules, models, programs, runtime, video, training and evaluation. Imports torch only on use."""
