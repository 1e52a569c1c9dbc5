"""Pictures, video files, cameras and raw frames."""
