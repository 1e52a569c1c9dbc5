"""The photographs that come with the package: what the demo shows, and what faster ways are checked on."""

from pathlib import Path

FOLDER = Path(__file__).parent
# File, severity of the rain from 0 to 1, seed.
SHOWERS = (("china.jpg", 0.6, 1), ("rocket.jpg", 0.4, 2), ("chelsea.png", 0.4, 1))
