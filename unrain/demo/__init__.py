"""`make demo`: rain on bundled pictures and a short clip, and the models that take it off again."""
