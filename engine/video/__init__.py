"""Video files, cameras, network streams and raw frames: decoded, derained and encoded side by side.

A source gives `Frame`s, and packets of sound to copy; sinks take them; `pipeline.derain_all` stands between the two.
"""
