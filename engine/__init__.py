"""What runs: modules, models, runtime, video, training, evaluation and the command line. Imports torch only on use."""
